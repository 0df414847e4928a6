/* Neurons as points. One can be followed; those that move now, while others rest, stand out. All
   paths' clouds may be outlined at once. */
(() => {
  "use strict";
  const { views, set, write } = globalThis.mcExplorers;
  const STILL = 0.05; // per cent of the picture: less is rounding

  views.neurons = (root) => {
    const picture = root.querySelector(".mc-cloud");
    const count = root.querySelector(".mc-count");
    const flight = root.querySelector(".mc-flight");
    const menu = root.querySelector(".mc-follow select");
    const way = root.querySelector(".mc-way");
    const neurons = [...picture.querySelectorAll(".mc-neuron")];
    const trails = [...picture.querySelectorAll(".mc-trail")];
    const outlines = [...picture.querySelectorAll(".mc-outline")];
    menu.dataset.lmSuppressShortcuts = "true"; // or JupyterLab takes its keys
    // 16-bit integers: two coordinates of every neuron, then the spread and t, in 1e-4; then for
    // each outline its centre, its half axes, its angle and a zero.
    const read = (code) => new Int16Array(code.buffer, code.byteOffset, code.byteLength / 2);
    const spot = (numbers, k) => [numbers[2 * k] / 100, numbers[2 * k + 1] / 100];
    let chosen = -1, now = null, around = [];

    function follow(k) {
      chosen = k;
      menu.value = k < 0 ? "" : String(k);
      neurons.forEach((neuron, i) => {
        neuron.classList.toggle("mc-chosen", i === k);
        trails[i].classList.toggle("mc-chosen", i === k);
      });
      picture.classList.toggle("mc-following", k >= 0);
      draw();
    }

    function draw() {
      if (!now) return;
      const [spread, t, ...rest] = now.subarray(2 * neurons.length);
      const before = around.length > 1 ? around[around.length - 2] : null;
      let moving = 0;
      neurons.forEach((neuron, k) => {
        const [x, y] = spot(now, k);
        set(neuron, { cx: `${x}%`, cy: `${y}%` });
        set(trails[k], { x2: `${x}%`, y2: `${y}%` });
        const [u, v] = before ? spot(before, k) : [x, y];
        const moves = Math.hypot(x - u, y - v) > STILL;
        neuron.classList.toggle("mc-moving", moves);
        moving += moves;
      });
      outlines.forEach((outline, k) => {
        const [x, y, rx, ry, angle] = rest.slice(6 * k).map((v) => v / 100);
        set(outline.parentNode, { x: `${x}%`, y: `${y}%` });
        set(outline, { rx, ry, transform: `rotate(${angle})` });
      });
      const exchange = moving > 0 && moving <= neurons.length / 2;
      picture.classList.toggle("mc-exchange", exchange);
      write(flight, exchange ? `${moving} of ${neurons.length} moved in this step` : "");
      const box = picture.getBoundingClientRect();
      const steps = chosen < 0 ? [] : around.map((code) => spot(code, chosen));
      const points = steps.map(([x, y]) => `${(x * box.width) / 100},${(y * box.height) / 100}`);
      set(way, { points: points.join(" ") });
      picture.style.setProperty("--mc-t", `${t / 100}%`);
      write(count, `${Math.round(spread / 100)}\u202f%`);
    }

    menu.addEventListener("change", () => follow(menu.value === "" ? -1 : Number(menu.value)));
    picture.addEventListener("click", (event) => {
      const box = picture.getBoundingClientRect();
      const x = (100 * (event.clientX - box.left)) / box.width;
      const y = (100 * (event.clientY - box.top)) / box.height;
      const gaps = neurons.map((_, k) => {
        const [u, v] = spot(now, k);
        return Math.hypot(u - x, v - y);
      });
      const near = gaps.indexOf(Math.min(...gaps));
      follow(gaps[near] > 6 || near === chosen ? -1 : near);
    });
    addEventListener("resize", draw);

    /* What is seen at point number i of a route, of which other(i) gives every code. */
    return (code, other, i) => {
      now = read(code);
      around = Array.from({ length: i + 1 }, (_, k) => read(other(k)));
      draw();
    };
  };
})();
