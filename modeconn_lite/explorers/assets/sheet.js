/* A sheet: the marker stands on the points at which the network was evaluated. */
(() => {
  "use strict";
  const { kinds, clamp, set, readout, texts } = globalThis.mcExplorers;

  kinds.sheet = (root, data, { source, show }) => {
    const pad = root.querySelector(".mc-pad");
    const circles = [...pad.querySelectorAll(".mc-now circle")];
    const grip = pad.querySelector(".mc-grip");
    const say = readout(root);
    const { u, v } = data.source.routes[0].axes;
    const there = Array.from(
      { length: source.count(0) },
      (_, i) => source.at(0, i).figures["test loss"] !== null,
    );
    const exists = (r, c) => there[r * u.length + c];
    const [u0, u1, v0, v1] = data.extent;
    let [row, column] = data.home;

    function draw() {
      const sight = source.at(0, row * u.length + column);
      const place = {
        cx: `${(100 * (sight.place.u - u0)) / (u1 - u0)}%`,
        cy: `${(100 * (v1 - sight.place.v)) / (v1 - v0)}%`,
      };
      for (const circle of circles) set(circle, place);
      say(texts(sight, data.forms));
      show(sight.code);
    }

    /* The grid point of the sheet that is nearest to a place, in steps of the grid. */
    function go(y, x) {
      let best = Infinity;
      for (let r = 0; r < v.length; r++) {
        for (let c = 0; c < u.length; c++) {
          const gap = (r - y) ** 2 + (c - x) ** 2;
          if (gap < best && exists(r, c)) [best, row, column] = [gap, r, c];
        }
      }
      draw();
    }

    function nearest(x, y) {
      const index = (axis, goal) =>
        axis.reduce((best, a, i) => (Math.abs(a - goal) < Math.abs(axis[best] - goal) ? i : best), 0);
      return [index(v, y), index(u, x)];
    }

    function point(event) {
      const box = pad.getBoundingClientRect();
      const x = clamp((event.clientX - box.left) / box.width, 0, 1);
      const y = clamp((box.bottom - event.clientY) / box.height, 0, 1);
      go(...nearest(u0 + x * (u1 - u0), v0 + y * (v1 - v0)));
    }

    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [1, 0], ArrowDown: [-1, 0] };
    pad.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const stride = event.shiftKey ? 5 : 1;
      if (event.key === "Home") go(...data.home);
      else if (event.key === "End") go(...data.end);
      else if (event.key in steps) {
        const [dy, dx] = steps[event.key];
        const [r, c] = [row + stride * dy, column + stride * dx];
        const inside = r >= 0 && c >= 0 && r < v.length && c < u.length;
        if ((inside && exists(r, c)) || stride > 1) go(r, c);
      } else return;
      event.preventDefault();
      event.stopPropagation(); // or a notebook would change its cell
    });
    let held = false;
    pad.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || (event.pointerType === "touch" && event.target !== grip)) return;
      held = true;
      pad.setPointerCapture(event.pointerId);
      point(event);
    });
    pad.addEventListener("pointermove", (event) => held && point(event));
    for (const end of ["pointerup", "pointercancel"]) {
      pad.addEventListener(end, () => {
        held = false;
      });
    }
    pad.addEventListener("click", point); // a tap moves the marker, a swipe scrolls the page
    draw();
  };
})();
