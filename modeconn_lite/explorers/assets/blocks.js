/* A walk in few states, each drawn whole beforehand. */
(() => {
  "use strict";
  const { kinds, set, readout, player } = globalThis.mcExplorers;

  kinds.blocks = (root, { says, steps, spots }) => {
    const slider = root.querySelector("input[type=range]");
    const states = [...root.querySelectorAll("[data-state]")];
    const list = root.querySelector(".mc-steps");
    const spot = root.querySelector(".mc-spot");
    const say = readout(root);
    function draw() {
      const k = Number(slider.value);
      for (const state of states) state.hidden = Number(state.dataset.state) !== k;
      say(says[k]);
      for (const item of list.children) {
        if (Number(item.dataset.step) === k) {
          set(item, { "aria-current": "step" });
          // Only the list scrolls, not the page.
          list.scrollTop = item.offsetTop - (list.clientHeight - item.offsetHeight) / 2;
        } else item.removeAttribute("aria-current");
      }
      if (spot) set(spot, { cx: `${spots[k].cx}%`, cy: `${spots[k].cy}%` });
      const words = [...Object.values(says[k]), ...(k ? [steps[k - 1]] : [])];
      slider.setAttribute("aria-valuetext", words.join(", "));
    }
    player(root, slider, draw, 900);
    draw();
  };
})();
