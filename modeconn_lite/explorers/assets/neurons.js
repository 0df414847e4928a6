/* Neurons as points. */
(() => {
  "use strict";
  const { views, set, write } = globalThis.mcExplorers;

  views.neurons = (root) => {
    const picture = root.querySelector(".mc-cloud");
    const count = root.querySelector(".mc-count");
    const neurons = [...picture.querySelectorAll(".mc-neuron")];
    const trails = [...picture.querySelectorAll(".mc-trail")];
    return (code) => {
      // 16-bit integers: two coordinates of every neuron, then the spread and t, in 1e-4.
      const numbers = new Int16Array(code.buffer, code.byteOffset, 2 * neurons.length + 2);
      const [spread, t] = numbers.subarray(2 * neurons.length);
      neurons.forEach((neuron, k) => {
        const [x, y] = [numbers[2 * k] / 100, numbers[2 * k + 1] / 100];
        set(neuron, { cx: `${x}%`, cy: `${y}%` });
        set(trails[k], { x2: `${x}%`, y2: `${y}%` });
      });
      picture.style.setProperty("--mc-t", `${t / 100}%`);
      write(count, `${Math.round(spread / 100)}\u202f%`);
    };
  };
})();
