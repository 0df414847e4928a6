/* Guess, then walk: the curve is hidden until the reader has drawn one, and then appears as far as
   one has walked. */
(() => {
  "use strict";
  const kit = globalThis.mcExplorers;
  const { clamp, set, write, percent, unveil } = kit;
  const SVG = "http://www.w3.org/2000/svg";
  const WORDS = { 0.25: "¼", 0.5: "½", 0.75: "¾" };

  function make(parent, tag, attributes, text) {
    const node = parent.namespaceURI === SVG ? document.createElementNS(SVG, tag) : document.createElement(tag);
    set(node, attributes);
    if (text) node.textContent = text;
    parent.append(node);
    return node;
  }

  /* Called by the path once it is drawn; what it returns is called after every step. */
  kit.guess = (root, { guess, charts: scales, span }, { source, slider, charts, draw }) => {
    const { of, at, ends } = guess;
    const { top, figure } = scales[of];
    const { chart, curves } = charts.find((each) => each.of === of);
    const plot = chart.querySelector(".mc-plot");
    const caption = root.querySelector("figcaption");
    const play = root.querySelector(".mc-foot");
    const about = charts.map((each) => each.chart.querySelector(".mc-plot").getAttribute("aria-label"));
    const value = (t) => source.at(0, source.nearest(0, { t })).figures[figure];
    const said = (y) => (of === "accuracy" ? percent(y) : `${y.toFixed(2)} nats`);
    const across = (t) => (100 * (t - span[0])) / (span[1] - span[0]);
    let stage = "guess", reach = 0;

    /* The words and buttons. */
    const panel = document.createElement("div");
    panel.className = "mc-guess";
    play.before(panel);
    const goal = `${of} at ¼, ½ and ¾ of the way from ${ends[0]} to ${ends[1]}`;
    const words = make(panel, "p", { "aria-live": "polite" });
    const question = `Your guess first: what is the ${goal}? Drag in the chart, or choose a handle and use the arrow keys.`;
    write(words, question);
    const ready = make(panel, "button", { type: "button", class: "mc-button mc-ready" }, "This is my guess");
    const all = make(panel, "button", { type: "button", class: "mc-button mc-all" }, "Show all");
    const again = make(panel, "button", { type: "button", class: "mc-button mc-again" }, "Guess again");

    /* The sketch: straight pieces through three handles. */
    set(plot, { role: "group" }); // an image could not hold handles
    const sketch = make(plot, "g", { class: "mc-sketch" });
    const frame = make(sketch, "svg", {
      viewBox: "0 0 1000 1000", preserveAspectRatio: "none", width: "100%", height: "100%",
    });
    const line = make(frame, "path", {});
    const handles = at.map((t) => {
      const start = top / 2; // neither the ends nor the answer
      const node = make(sketch, "g", {
        class: "mc-handle", role: "slider", tabindex: "0", "aria-orientation": "vertical",
        "aria-label": `${of} at ${WORDS[t]}`, "aria-valuemin": 0, "aria-valuemax": top,
      });
      make(node, "circle", { class: "mc-grip", r: 22 });
      make(node, "circle", { class: "mc-knob", r: 9 });
      return { t, node, start, y: start };
    });

    function place(handle, y) {
      handle.y = clamp(y, 0, top);
      const spot = { cx: `${across(handle.t)}%`, cy: `${100 * (1 - handle.y / top)}%` };
      for (const circle of handle.node.children) set(circle, spot);
      set(handle.node, { "aria-valuenow": handle.y.toFixed(3), "aria-valuetext": said(handle.y) });
      const through = [[0, value(0)], ...handles.map((h) => [h.t, h.y]), [1, value(1)]];
      const points = through.map(([t, v]) => `${(10 * across(t)).toFixed(1)} ${(1000 * (1 - v / top)).toFixed(1)}`);
      set(line, { d: `M${points.join("L")}` });
    }

    function move(event) {
      const box = plot.getBoundingClientRect();
      const x = (100 * (event.clientX - box.left)) / box.width;
      const y = top * (1 - (event.clientY - box.top) / box.height);
      const gap = (handle) => Math.abs(across(handle.t) - x);
      place(handles.reduce((one, two) => (gap(two) < gap(one) ? two : one)), y);
    }

    let held = false;
    plot.addEventListener("pointerdown", (event) => {
      if (stage !== "guess" || event.button !== 0) return;
      held = true;
      plot.setPointerCapture(event.pointerId);
      move(event);
      event.preventDefault();
    });
    plot.addEventListener("pointermove", (event) => held && move(event));
    for (const end of ["pointerup", "pointercancel"]) {
      plot.addEventListener(end, () => {
        held = false;
      });
    }
    for (const handle of handles) {
      handle.node.addEventListener("keydown", (event) => {
        const steps = { ArrowUp: 0.02, ArrowRight: 0.02, ArrowDown: -0.02, ArrowLeft: -0.02, PageUp: 0.1, PageDown: -0.1, Home: -1, End: 1 };
        if (stage !== "guess" || !(event.key in steps) || event.ctrlKey || event.metaKey || event.altKey) return;
        place(handle, handle.y + steps[event.key] * top * (event.shiftKey ? 5 : 1));
        event.preventDefault();
        event.stopPropagation(); // or a notebook would change its cell
      });
    }

    function points(gap) {
      const whole = Math.round(100 * Math.abs(gap));
      return whole === 1 ? "1 point" : `${whole} points`;
    }

    function verdict() {
      const gaps = handles.map(({ t, y }) => y - value(t));
      const size = (gap) => (of === "accuracy" ? points(gap) : said(Math.abs(gap)));
      const each = handles.map(({ t }, k) => {
        const side = gaps[k] > 0 ? "high" : "low";
        return Math.abs(gaps[k]) < 0.02 * top ? `right at ${WORDS[t]}` : `${size(gaps[k])} too ${side} at ${WORDS[t]}`;
      });
      const mean = gaps.reduce((sum, gap) => sum + Math.abs(gap), 0) / gaps.length;
      return `Your guess was off by ${size(mean)} on average: ${each.join(", ")}.`;
    }

    /* Between guess, walk and all, the page's style shows what belongs there. */
    function show(next) {
      stage = root.dataset.stage = next;
      const whole = stage === "all";
      if (stage === "guess") plot.append(sketch);
      else plot.prepend(sketch); // behind what is written into the chart
      caption.hidden = !whole;
      charts.forEach((each, k) => {
        const hidden = `${each.of} along the path, hidden until you have walked it`;
        set(each.chart.querySelector(".mc-plot"), { "aria-label": whole ? about[k] : hidden });
        if (!whole) each.chart.hidden = each.of !== of;
      });
      for (const { node } of handles) set(node, { tabindex: stage === "guess" ? "0" : "-1", "aria-disabled": stage !== "guess" });
      for (const button of root.querySelectorAll("button[name=curve]")) {
        if (!whole) set(button, { "aria-pressed": String(button.value === of) });
      }
      if (stage === "guess") write(words, question);
      if (stage === "walk") write(words, "Now walk. The curve appears as far as you go.");
      if (whole) write(words, verdict());
      lift();
    }

    function lift() {
      const last = Number(slider.max);
      const share = across(source.at(0, Math.min(reach, last)).place.t);
      for (const each of charts) {
        for (const curve of each.curves) {
          const own = Number(curve.dataset.path) === 0;
          curve.style.visibility = stage === "all" || own ? "" : "hidden";
          if (own) unveil(curve, stage === "guess" ? 0 : share, stage === "all");
          else unveil(curve, 100, true);
        }
      }
    }

    ready.addEventListener("click", () => {
      show("walk");
      slider.focus();
    });
    all.addEventListener("click", () => {
      reach = Number(slider.max);
      show("all");
      slider.focus();
    });
    again.addEventListener("click", () => {
      reach = 0;
      for (const button of root.querySelectorAll("button[name=path][value='0']")) button.click();
      slider.value = source.nearest(0, { t: 0 });
      for (const handle of handles) place(handle, handle.start);
      show("guess");
      draw();
      handles[0].node.focus();
    });
    addEventListener("beforeprint", () => all.click());
    for (const handle of handles) place(handle, handle.start);
    reach = Number(slider.value);
    show("guess");

    return (i) => {
      if (stage !== "walk") return;
      reach = Math.max(reach, i);
      if (reach === Number(slider.max)) show("all");
      else lift();
    };
  };
})();
