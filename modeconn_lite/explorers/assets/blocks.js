/* A walk in few states, each drawn whole beforehand. */
(() => {
  "use strict";
  const { kinds, readout, player } = globalThis.mcExplorers;

  kinds.blocks = (root, { says }) => {
    const slider = root.querySelector("input[type=range]");
    const states = [...root.querySelectorAll("[data-state]")];
    const say = readout(root);
    function draw() {
      const k = Number(slider.value);
      for (const state of states) state.hidden = Number(state.dataset.state) !== k;
      say(says[k]);
      slider.setAttribute("aria-valuetext", Object.values(says[k]).join(", "));
    }
    player(root, slider, draw, 900);
    draw();
  };
})();
