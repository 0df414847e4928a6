/* Explorers: moves what Python has drawn. Runs once per output, readies what is not ready yet. */
(() => {
  "use strict";

  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const percent = (x) => `${(100 * x).toFixed(1)}\u202f%`;
  const clamp = (x, low, high) => Math.min(Math.max(x, low), high);

  function set(node, attributes) {
    for (const name in attributes) node.setAttribute(name, attributes[name]);
  }

  function write(node, text) {
    if (node.textContent !== text) node.textContent = text;
  }

  function nearest(values, x) {
    let best = 0;
    values.forEach((v, i) => {
      if (Math.abs(v - x) < Math.abs(values[best] - x)) best = i;
    });
    return best;
  }

  function readout(root) {
    const slots = [...root.querySelectorAll(".mc-readout b")];
    return (texts) => texts.forEach((text, i) => write(slots[i], text));
  }

  /* Test images and what the network takes them for: returns show(codes, start). */
  function album(root, { classes, labels, codes_per: size }) {
    const count = root.querySelector(".mc-count");
    const tiles = [...root.querySelectorAll(".mc-tile")].map((tile) => ({
      tile,
      rects: [...tile.querySelectorAll("rect")],
      name: tile.querySelector(".mc-says b"),
      verdict: tile.querySelector(".mc-says i"),
      sure: tile.querySelector(".mc-says span:last-child"),
    }));
    return (codes, start) => {
      let hits = 0;
      tiles.forEach(({ tile, rects, name, verdict, sure }, k) => {
        const code = codes.subarray(start + k * size, start + (k + 1) * size);
        let [top, value] = code;
        if (rects.length) {
          value = Math.max(...code);
          top = code.indexOf(value);
          rects.forEach((rect, c) => {
            rect.setAttribute("height", code[c]);
            if (c !== labels[k]) rect.setAttribute("class", c === top ? "mc-top" : "mc-other");
          });
        }
        const right = top === labels[k];
        hits += right;
        tile.dataset.is = right ? "right" : "wrong";
        set(verdict, { "aria-label": tile.dataset.is });
        write(verdict, right ? "✓" : "✗");
        write(name, classes[top]);
        write(sure, `${Math.round((100 * value) / 255)}%`);
      });
      write(count, String(hits));
    };
  }

  /* Lines where `field`, a square of side n, crosses zero: marching squares, as SVG path data. */
  function zeroLine(field, n) {
    const place = (i) => ((i + 0.5) * 1000) / n;
    let d = "";
    for (let r = 0; r + 1 < n; r++) {
      for (let c = 0; c + 1 < n; c++) {
        const a = field[r * n + c], b = field[r * n + c + 1];
        const e = field[(r + 1) * n + c + 1], f = field[(r + 1) * n + c];
        const cuts = []; // on the upper, right, lower, left side, in this order
        if (a > 0 !== b > 0) cuts.push([place(c + a / (a - b)), place(r)]);
        if (b > 0 !== e > 0) cuts.push([place(c + 1), place(r + b / (b - e))]);
        if (f > 0 !== e > 0) cuts.push([place(c + f / (f - e)), place(r + 1)]);
        if (a > 0 !== f > 0) cuts.push([place(c), place(r + a / (a - f))]);
        for (let k = 0; k + 1 < cuts.length; k += 2) {
          const [p, q] = [cuts[k], cuts[k + 1]];
          d += `M${p[0].toFixed(0)} ${p[1].toFixed(0)}L${q[0].toFixed(0)} ${q[1].toFixed(0)}`;
        }
      }
    }
    return d;
  }

  /* Decision regions: returns show(codes, start). */
  function regions(root, { side, levels, colours }) {
    const canvas = root.querySelector(".mc-regions canvas");
    const edge = root.querySelector(".mc-edge");
    const brush = canvas.getContext("2d");
    const image = brush.createImageData(side, side);
    const field = new Float32Array(side * side);
    canvas.style.backgroundImage = "none";
    return (codes, start) => {
      let d = "";
      for (let k = 0; k < (colours.length > 2 ? colours.length : 1); k++) {
        for (let i = 0; i < field.length; i++) {
          const code = codes[start + i], sure = (code % levels) + 0.5;
          field[i] = Math.floor(code / levels) === k ? sure : -sure;
        }
        d += zeroLine(field, side);
      }
      edge.setAttribute("d", d);
      for (let i = 0; i < field.length; i++) {
        const code = codes[start + i], top = Math.floor(code / levels);
        image.data.set(colours[top], 4 * i);
        image.data[4 * i + 3] = 25 + (130 * (code % levels)) / (levels - 1);
      }
      brush.putImageData(image, 0, 0);
    };
  }

  /* Neurons as points: returns show(codes, start). */
  function cloud(picture, count) {
    const neurons = [...picture.querySelectorAll(".mc-neuron")];
    const trails = [...picture.querySelectorAll(".mc-trail")];
    return (codes, start) => {
      const numbers = new Int16Array(codes.buffer, start, 2 * neurons.length + 2);
      const [spread, t] = numbers.subarray(2 * neurons.length);
      neurons.forEach((neuron, k) => {
        const [x, y] = [numbers[2 * k] / 100, numbers[2 * k + 1] / 100];
        set(neuron, { cx: `${x}%`, cy: `${y}%` });
        set(trails[k], { x2: `${x}%`, y2: `${y}%` });
      });
      picture.style.setProperty("--mc-t", `${t / 100}%`);
      write(count, `${Math.round(spread / 100)}\u202f%`);
    };
  }

  function opinions(root, data) {
    const picture = root.querySelector(".mc-cloud");
    if (picture) return cloud(picture, root.querySelector(".mc-count"));
    if (data.side && root.querySelector(".mc-regions")) return regions(root, data);
    return root.querySelector(".mc-album") ? album(root, data) : () => {};
  }

  /* The button that walks a slider to its end, a step every so many milliseconds. */
  function player(root, slider, draw, pace) {
    const play = root.querySelector(".mc-play");
    const live = root.querySelector(".mc-readout");
    const label = play.querySelector("span");
    const invitation = label.textContent;
    let timer = 0;
    function stop() {
      clearTimeout(timer);
      timer = 0;
      delete play.dataset.on;
      write(label, invitation);
      live.setAttribute("aria-live", "polite");
    }
    function step() {
      slider.value = Number(slider.value) + 1;
      draw();
      if (slider.value === slider.max) return stop();
      const slow = matchMedia("(prefers-reduced-motion: reduce)").matches;
      timer = setTimeout(step, slow ? Math.max(700, pace) : pace);
    }
    play.addEventListener("click", () => {
      if (timer) return stop();
      if (slider.value === slider.max) slider.value = 0;
      play.dataset.on = "";
      write(label, "Pause");
      live.setAttribute("aria-live", "off"); // or a screen reader would speak without end
      timer = setTimeout(step, 100);
      draw();
    });
    slider.addEventListener("input", () => {
      if (timer) stop();
      draw();
    });
  }

  /* A path: the slider steps over the points at which the network was evaluated. */
  function walk(root, data) {
    const slider = root.querySelector("input[type=range]");
    const say = readout(root);
    const show = opinions(root, data);
    const charts = [...root.querySelectorAll(".mc-chart")].map((chart) => ({
      chart,
      of: chart.dataset.of,
      line: chart.querySelector(".mc-hair"),
      dot: chart.querySelector(".mc-now circle"),
      text: chart.querySelector(".mc-now text"),
      curves: [...chart.querySelectorAll(".mc-curve")],
    }));
    const [s0, s1] = data.span;
    const codes = data.paths.map((path) => bytes(path.codes));
    let chosen = 0;

    function draw() {
      const path = data.paths[chosen];
      const i = Number(slider.value);
      const t = path.t[i];
      const x = (100 * (t - s0)) / (s1 - s0);
      for (const { of, line, dot, text } of charts) {
        const value = path[of].test[i];
        const y = 100 * (1 - value / data.top[of]);
        const after = x < 15 || (x >= 50 && x <= 85);
        set(line, { x1: `${x}%`, x2: `${x}%`, y1: `${y}%` });
        set(dot, { cx: `${x}%`, cy: `${y}%` });
        set(text, {
          x: `${x}%`,
          y: `${y}%`,
          dx: after ? 12 : -12,
          dy: of === "loss" ? -11 : 21,
          class: after ? "mc-after" : "mc-before",
        });
        write(text, of === "loss" ? value.toFixed(2) : percent(value));
      }
      const { accuracy, loss } = path;
      const texts = [
        t.toFixed(3),
        percent(accuracy.test[i]),
        loss.test[i].toFixed(3),
        percent(accuracy.train[i]),
        loss.train[i].toFixed(3),
      ];
      say(texts);
      slider.setAttribute("aria-valuetext", `t = ${texts[0]}, test accuracy ${texts[1]}`);
      show(codes[chosen], (i * codes[chosen].length) / path.t.length);
    }

    function press(buttons, button) {
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
    }

    const curves = [...root.querySelectorAll("[data-of][aria-pressed]")];
    for (const button of curves) {
      button.addEventListener("click", () => {
        press(curves, button);
        for (const { chart, of } of charts) chart.hidden = of !== button.dataset.of;
      });
    }

    const paths = [...root.querySelectorAll("button[data-path]")];
    for (const button of paths) {
      button.addEventListener("click", () => {
        press(paths, button);
        const t = data.paths[chosen].t[slider.value];
        chosen = Number(button.dataset.path);
        for (const { curves: groups } of charts) {
          for (const group of groups) {
            const on = Number(group.dataset.path) === chosen;
            group.classList.toggle("mc-on", on);
            if (on) groups[0].parentNode.insertBefore(group, groups[0].parentNode.querySelector(".mc-end"));
          }
        }
        slider.max = data.paths[chosen].t.length - 1;
        slider.value = nearest(data.paths[chosen].t, t);
        draw();
      });
    }

    player(root, slider, draw, 6000 / Number(slider.max));
    draw();
  }

  /* A walk in few states, each drawn whole beforehand. */
  function leaf(root, { says }) {
    const slider = root.querySelector("input[type=range]");
    const states = [...root.querySelectorAll("[data-state]")];
    const say = readout(root);
    function draw() {
      const k = Number(slider.value);
      states.forEach((state, i) => {
        state.hidden = i !== k;
      });
      say(says[k]);
      slider.setAttribute("aria-valuetext", says[k].join(", "));
    }
    player(root, slider, draw, 900);
    draw();
  }

  /* A sheet: the marker stands on the points at which the network was evaluated. */
  function roam(root, data) {
    const pad = root.querySelector(".mc-pad");
    const circles = [...pad.querySelectorAll(".mc-now circle")];
    const grip = pad.querySelector(".mc-grip");
    const say = readout(root);
    const show = opinions(root, data);
    const { u, v, loss, accuracy } = data;
    const codes = data.codes ? bytes(data.codes) : new Uint8Array();
    const size = codes.length / (u.length * v.length);
    const exists = (r, c) => (loss.test[r * u.length + c] ?? null) !== null;
    let row = data.start[0];
    let column = data.start[1];

    function draw() {
      const k = row * u.length + column;
      const place = {
        cx: `${(100 * column) / (u.length - 1)}%`,
        cy: `${100 - (100 * row) / (v.length - 1)}%`,
      };
      for (const circle of circles) set(circle, place);
      say([
        u[column].toFixed(2),
        v[row].toFixed(2),
        percent(accuracy.test[k]),
        loss.test[k].toFixed(3),
        percent(accuracy.train[k]),
        loss.train[k].toFixed(3),
      ]);
      show(codes, k * size);
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

    function point(event) {
      const box = pad.getBoundingClientRect();
      const x = clamp((event.clientX - box.left) / box.width, 0, 1);
      const y = clamp((box.bottom - event.clientY) / box.height, 0, 1);
      go(y * (v.length - 1), x * (u.length - 1));
    }

    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [1, 0], ArrowDown: [-1, 0] };
    pad.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const stride = event.shiftKey ? 5 : 1;
      if (event.key === "Home") go(...data.start);
      else if (event.key in steps) {
        const [dy, dx] = steps[event.key];
        const to = [row + stride * dy, column + stride * dx];
        if (exists(...to) || stride > 1) go(...to);
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
  }

  for (const root of document.querySelectorAll(".mc-explorer:not([data-ready])")) {
    const source = root.querySelector('script[type="application/json"]');
    if (!source) continue; // the parser has not reached it yet
    root.dataset.ready = "";
    for (const control of root.querySelectorAll("input, button, .mc-pad")) {
      control.dataset.lmSuppressShortcuts = "true"; // or JupyterLab takes its keys
    }
    const kind = root.classList[1].slice(3);
    ({ path: walk, sheet: roam, states: leaf })[kind](root, JSON.parse(source.textContent));
  }
})();
