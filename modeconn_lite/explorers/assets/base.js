/* Explorers: what all kinds share. Scripts move what Python has drawn; nothing is loaded. */
(() => {
  "use strict";

  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const clamp = (x, low, high) => Math.min(Math.max(x, low), high);
  const percent = (x) => `${(100 * x).toFixed(1)}\u202f%`;

  function set(node, attributes) {
    for (const name in attributes) node.setAttribute(name, attributes[name]);
  }

  function write(node, text) {
    if (node.textContent !== text) node.textContent = text;
  }

  /* A figure as the read-out shows it: "%" or a number of digits. */
  const shown = (value, how) => (how === "%" ? percent(value) : value.toFixed(how));

  /* Where numbers come from. A source knows the places of each route, and what is seen at them:
     count(route), nearest(route, place), at(route, i) -> { place, figures, code }. */
  const sources = {
    /* Points at which the network was evaluated beforehand. The last axis runs fastest. */
    points({ routes }) {
      const codes = routes.map((route) => bytes(route.codes));
      const axes = routes.map((route) => Object.entries(route.axes));
      const count = (r) => axes[r].reduce((n, [, values]) => n * values.length, 1);
      function place(r, i) {
        const found = {};
        for (const [name, values] of [...axes[r]].reverse()) {
          found[name] = values[i % values.length];
          i = Math.floor(i / values.length);
        }
        return found;
      }
      function at(r, i) {
        const figures = {};
        for (const name in routes[r].figures) figures[name] = routes[r].figures[name][i] ?? null;
        const size = codes[r].length / count(r);
        return { place: place(r, i), figures, code: codes[r].subarray(i * size, (i + 1) * size) };
      }
      function nearest(r, goal) {
        let best = 0, least = Infinity;
        for (let i = 0; i < count(r); i++) {
          const here = place(r, i);
          const gap = Object.keys(goal).reduce((sum, n) => sum + (here[n] - goal[n]) ** 2, 0);
          if (gap < least) [best, least] = [i, gap];
        }
        return best;
      }
      return { count, nearest, at };
    },
  };

  /* The read-out: returns say({ name: text }). */
  function readout(root) {
    const slots = {};
    for (const slot of root.querySelectorAll(".mc-readout [data-say]")) slots[slot.dataset.say] = slot;
    return (texts) => {
      for (const name in texts) if (slots[name]) write(slots[name], texts[name]);
    };
  }

  /* What a sight's place and figures read, by name, in the forms that Python gave. */
  function texts({ place, figures }, forms) {
    const all = { ...place, ...figures };
    return Object.fromEntries(Object.keys(forms).map((name) => [name, shown(all[name], forms[name])]));
  }

  /* A group of buttons of which one is pressed: calls choose(its value). */
  function choice(buttons, choose) {
    for (const button of buttons) {
      button.addEventListener("click", () => {
        for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
        choose(button.value);
      });
    }
  }

  /* Show a curve, a group of SVGs in thousandths, up to a share of its width in per cent. */
  function unveil(curve, share, whole) {
    for (const part of curve.querySelectorAll("svg")) {
      const width = Math.max(share, 0.1);
      set(part, { width: `${width}%`, viewBox: `0 0 ${10 * width} 1000` });
      part.style.overflow = whole ? "visible" : "hidden";
    }
    for (const words of curve.querySelectorAll("text, rect, .mc-bracket, .mc-band")) {
      words.style.visibility = whole ? "" : "hidden";
    }
  }

  /* Hide a curve's name while the marker or its number stands on it. */
  function apart(chart) {
    const spots = [...chart.querySelectorAll(".mc-now *")].map((node) => node.getBoundingClientRect());
    for (const name of chart.querySelectorAll(".mc-name")) {
      const box = name.getBoundingClientRect();
      const hit = spots.some((s) => s.left < box.right && box.left < s.right && s.top < box.bottom && box.top < s.bottom);
      name.style.opacity = hit ? "0" : "";
    }
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

  /* Ready every explorer whose parts are there. A page may carry each script once. */
  function start() {
    for (const root of document.querySelectorAll(".mc-explorer:not([data-ready])")) {
      const source = root.querySelector('script[type="application/json"]');
      const kind = kit.kinds[root.dataset.kind];
      if (!source || !kind) continue; // the parser has not reached it yet
      root.dataset.ready = "";
      for (const control of root.querySelectorAll("input, button, .mc-pad")) {
        control.dataset.lmSuppressShortcuts = "true"; // or JupyterLab takes its keys
      }
      const data = JSON.parse(source.textContent);
      const show = data.view ? kit.views[data.view.kind](root, data.view) : () => {};
      kind(root, data, { source: data.source && sources[data.source.kind](data.source), show });
    }
  }

  const tools = { clamp, set, write, percent, shown, readout, texts, choice, unveil, apart, player };
  const kit = { kinds: {}, views: {}, sources, start, ...tools };
  globalThis.mcExplorers = kit;
})();
