/* A path: the slider steps over the points at which the network was evaluated. */
(() => {
  "use strict";
  const kit = globalThis.mcExplorers;
  const { kinds, set, write, shown, readout, texts, choice, player, apart } = kit;

  kinds.path = (root, data, { source, show }) => {
    const slider = root.querySelector(".mc-slider input");
    const dial = root.querySelector(".mc-dial input"); // over a series of paths
    const say = readout(root);
    const [first, last] = data.span;
    const charts = [...root.querySelectorAll(".mc-chart")].map((chart) => ({
      chart,
      of: chart.dataset.of,
      ...data.charts[chart.dataset.of],
      line: chart.querySelector(".mc-hair"),
      dot: chart.querySelector(".mc-now circle"),
      text: chart.querySelector(".mc-now text"),
      curves: [...chart.querySelectorAll(".mc-curve")],
    }));
    let route = 0;
    let after = () => {}; // of a guess

    function draw() {
      const sight = source.at(route, Number(slider.value));
      const x = (100 * (sight.place.t - first)) / (last - first);
      const behind = data.beside.after.some(([low, high]) => low <= x && x <= high);
      for (const { figure, top, form, below, line, dot, text } of charts) {
        const value = sight.figures[figure];
        const y = 100 * (1 - value / top);
        set(line, { x1: `${x}%`, x2: `${x}%`, y1: `${y}%` });
        set(dot, { cx: `${x}%`, cy: `${y}%` });
        const dx = behind ? data.beside.dx : -data.beside.dx;
        set(text, { x: `${x}%`, y: `${y}%`, dx, dy: below, class: behind ? "mc-after" : "mc-before" });
        write(text, shown(value, form));
      }
      const words = texts(sight, data.forms);
      say(words);
      const spoken = `t = ${words.t}, test accuracy ${words["test accuracy"]}`;
      slider.setAttribute("aria-valuetext", spoken);
      show(sight.code, (i) => source.at(route, i).code, Number(slider.value));
      after(Number(slider.value));
      for (const { chart } of charts) apart(chart);
    }

    const buttons = [...root.querySelectorAll("button[name=curve]")];
    choice(buttons, (of) => {
      for (const { value } of buttons) charts.find((c) => c.of === value).chart.hidden = value !== of;
      draw();
    });

    function take(chosen) {
      const { place } = source.at(route, Number(slider.value));
      route = Number(chosen);
      for (const { curves } of charts) {
        for (const curve of curves) {
          const on = Number(curve.dataset.path) === route;
          curve.classList.toggle("mc-on", on);
          // The walked one on top, the ends' dots above it.
          if (on) curve.parentNode.insertBefore(curve, curve.parentNode.querySelector(".mc-end"));
        }
      }
      slider.max = source.count(route) - 1;
      slider.value = source.nearest(route, place);
      draw();
    }

    choice([...root.querySelectorAll("button[name=path]")], take);
    dial?.addEventListener("input", () => {
      const value = dial.dataset.values.split("|")[dial.value];
      write(dial.nextElementSibling, value);
      set(dial, { "aria-valuetext": value });
      take(dial.value);
    });
    player(root, slider, draw, 6000 / Number(slider.max));
    draw();
    if (data.guess) after = kit.guess(root, data, { source, slider, charts, draw });
  };
})();
