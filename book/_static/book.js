// A formula wider than the page shrinks a little; if that is not enough, it scrolls by itself, shows
// so at its edge, and only then is a tab stop. Folded boxes open for print and for links into them.
(() => {
  const SMALLEST = 0.78;

  const edge = (box) => {
    const left = box.scrollLeft > 1;
    const right = box.scrollLeft + box.clientWidth < box.scrollWidth - 1;
    box.dataset.more = left && right ? "both" : left ? "left" : right ? "right" : "none";
  };

  const sizes = new WeakMap(); // in per cent of the text's, as MathJax set them
  const width = (element) => element.getBoundingClientRect().width;
  const tooWide = (box) => width(box.firstElementChild) > width(box) + 1;

  const fit = (box) => {
    if (!box.clientWidth) return; // folded away
    if (!sizes.has(box)) {
      if (!tooWide(box)) return; // nearly all
      sizes.set(box, parseFloat(box.style.fontSize) || 100);
    }
    const size = sizes.get(box);
    box.style.fontSize = `${size}%`;
    if (tooWide(box)) {
      const share = width(box) / width(box.firstElementChild);
      box.style.fontSize = `${size * Math.max(SMALLEST, 0.99 * share)}%`;
    }
    if (tooWide(box)) {
      box.tabIndex = 0;
      box.setAttribute("role", "group");
      box.setAttribute("aria-label", "Formula, scrolls sideways");
      edge(box);
    } else {
      for (const name of ["tabindex", "role", "aria-label", "data-more"]) box.removeAttribute(name);
    }
  };

  const start = async () => {
    if (window.MathJax && MathJax.startup) await MathJax.startup.promise;
    const widths = new WeakMap();
    const watch = new ResizeObserver((entries) => {
      for (const { target } of entries) {
        if (widths.get(target) === target.clientWidth) continue; // its height, after a change of size
        widths.set(target, target.clientWidth);
        fit(target);
      }
    });
    for (const box of document.querySelectorAll(".bd-article .math > mjx-container")) {
      box.addEventListener("scroll", () => edge(box), { passive: true });
      watch.observe(box);
    }
  };
  window.addEventListener("load", start);

  const openAround = (id) => {
    let box = id && document.getElementById(id);
    for (; box; box = box.parentElement) if (box.tagName === "DETAILS") box.open = true;
  };
  const follow = () => openAround(decodeURIComponent(location.hash.slice(1)));
  window.addEventListener("hashchange", follow);
  document.addEventListener("DOMContentLoaded", follow);

  let opened = [];
  window.addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll(".bd-article details:not([open])")];
    for (const box of opened) box.open = true;
  });
  window.addEventListener("afterprint", () => {
    for (const box of opened) box.open = false;
  });
})();
