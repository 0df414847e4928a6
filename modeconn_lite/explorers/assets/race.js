/* Several paths walked in step: curves appear as far as one has walked. */
(() => {
  "use strict";
  const { kinds, views, set, write, percent, readout, texts, player, unveil } = globalThis.mcExplorers;

  kinds.race = (root, data, { source }) => {
    const slider = root.querySelector("input[type=range]");
    const say = readout(root);
    const curves = [...root.querySelectorAll(".mc-curve")];
    const runners = [...root.querySelectorAll("[data-runner]")];
    const plot = root.querySelector(".mc-plot");
    const caption = root.querySelector("figcaption");
    const all = root.querySelector(".mc-all");
    const about = plot.getAttribute("aria-label");
    const lanes = [...root.querySelectorAll("[data-lane]")].map((lane) => ({
      lane,
      score: lane.querySelector(".mc-score"),
      fate: lane.querySelector(".mc-fate"),
      show: views.album(lane, data.view),
    }));
    let reach = 0;

    /* Who is unfolded runs in front, who is folded as a thin line. */
    function fold(k) {
      const { open } = lanes[k].lane;
      for (const node of [curves[k], runners[k]]) node.classList.toggle("mc-back", !open);
    }

    function draw() {
      const i = Number(slider.value);
      reach = Math.max(reach, i);
      lanes.forEach(({ lane, score, fate, show }, k) => {
        const sight = source.at(k, i);
        const { t } = sight.place;
        const accuracy = sight.figures["test accuracy"];
        set(runners[k], { cx: `${100 * t}%`, cy: `${100 * (1 - accuracy)}%` });
        write(score, percent(accuracy));
        const fallen = data.falls[k] !== null && t >= data.falls[k];
        lane.classList.toggle("mc-fallen", fallen);
        runners[k].classList.toggle("mc-fallen", fallen);
        const done = i === Number(slider.max) ? "arrived" : "";
        write(fate, fallen ? `fell at t = ${data.falls[k].toFixed(2)}` : done);
        show(sight.code);
      });
      const words = texts(source.at(0, i), { t: data.forms.t });
      say(words);
      const scores = data.names.map((name, k) => `${name} ${lanes[k].score.textContent}`).join(", ");
      slider.setAttribute("aria-valuetext", `t = ${words.t}: ${scores}`);
      const whole = reach === Number(slider.max);
      for (const curve of curves) unveil(curve, (100 * reach) / Number(slider.max), whole);
      plot.setAttribute("aria-label", whole ? about : "test accuracy, as far as you have walked");
      caption.hidden = !whole;
      all.hidden = whole;
    }

    all.addEventListener("click", () => {
      reach = Number(slider.max);
      draw();
      slider.focus();
    });
    player(root, slider, draw, 7000 / Number(slider.max));
    lanes.forEach(({ lane }, k) => {
      lane.addEventListener("toggle", () => fold(k));
      fold(k);
    });
    addEventListener("beforeprint", () => {
      all.click();
      for (const { lane } of lanes) lane.open = true;
    });
    draw();
  };
})();
