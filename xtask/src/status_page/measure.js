// What a browser finds on the status page; the value of the last expression is the result.
(() => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const channels = (color) => color.match(/[\d.]+/g).map(Number);
  const light = (color) => {
    const linear = channels(color).slice(0, 3).map((value) => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      const alpha = channels(color)[3];
      if (alpha === undefined || alpha === 1) return color;
    }
    return "rgb(255, 255, 255)";
  };
  // WCAG 2, "contrast ratio".
  const contrast = (element) => {
    const pair = [light(getComputedStyle(element).color), light(ground(element))];
    return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
  };
  const faint = all("body *")
    .filter((element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim()))
    .map((element) => [element, contrast(element)])
    .filter(([, ratio]) => ratio < 4.5)
    .map(([element, ratio]) => `${element.localName} "${element.textContent.trim().slice(0, 40)}" ${ratio.toFixed(2)}`);
  // A box of its own may scroll, the page may not.
  const wide = all("body *")
    .filter((element) => !element.closest("pre") && element.getBoundingClientRect().right > innerWidth + 0.5)
    .map((element) => `${element.localName} "${element.textContent.trim().slice(0, 40)}"`);
  return {
    title: document.title,
    language: document.documentElement.lang,
    quirks: document.compatMode !== "CSS1Compat",
    width: document.scrollingElement.scrollWidth,
    height: document.scrollingElement.scrollHeight,
    ground: getComputedStyle(document.documentElement).backgroundColor,
    styled: Boolean(document.querySelector("style")?.sheet),
    scripts: all("script").length,
    headings: all("h1, h2, h3, h4, h5, h6").map((heading) => Number(heading.localName[1])),
    landmarks: all("header, main, footer, nav").map((element) => element.localName),
    sections: all("main > section").map((section) => section.id),
    dangling: all("a[href^='#']").map((link) => link.hash.slice(1)).filter((id) => !document.getElementById(id)),
    faint,
    wide,
  };
})();
