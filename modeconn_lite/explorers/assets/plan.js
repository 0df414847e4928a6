/* A plan at several regularisations, each drawn whole beforehand. */
(() => {
  "use strict";
  const { kinds, set, readout, player } = globalThis.mcExplorers;

  kinds.plan = (root, { says, spots }) => {
    const slider = root.querySelector("input[type=range]");
    const states = [...root.querySelectorAll("[data-state]")];
    const spot = root.querySelector(".mc-spot");
    const say = readout(root);
    function draw() {
      const k = Number(slider.value);
      for (const state of states) state.hidden = Number(state.dataset.state) !== k;
      set(spot, { cx: `${spots[k].cx}%`, cy: `${spots[k].cy}%` });
      say(says[k]);
      const words = Object.entries(says[k]).map(([name, value]) => `${name} ${value}`);
      slider.setAttribute("aria-valuetext", words.join(", "));
    }
    player(root, slider, draw, 400);
    draw();
  };
})();
