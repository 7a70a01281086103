// Pointer read-out of the figures: nearest recorded step, every curve's value there. The page works without it.
(function () {
  "use strict";
  function mapper(s) {
    var kind = s[0], first = s[3], stop = s[4], start = s[5], knee = s[6], zero = s[7];
    function t(v) {
      if (kind === "log") return Math.log10(v);
      if (kind === "symlog") return Math.sign(v) * Math.log10(1 + Math.abs(v) / knee);
      return v;
    }
    var low = t(s[1]), high = t(s[2]);
    return function (v) {
      if (v === null) return NaN;
      if (kind === "log" && v <= 0) return zero ? start : NaN;
      return first + Math.min(1, Math.max(0, (t(v) - low) / (high - low))) * (stop - first);
    };
  }
  function show(v, percent) {
    if (percent) return +(100 * v).toPrecision(3) + "%";
    return Math.abs(v) >= 1e6 || (v !== 0 && Math.abs(v) < 1e-3) ? v.toExponential(2) : String(+v.toPrecision(4));
  }
  function nearest(xs, px, at) {
    var best = -1, gap = Infinity;
    for (var i = 0; i < xs.length; i++) {
      var g = Math.abs(px(xs[i]) - at);
      if (g < gap) { gap = g; best = i; }
    }
    return best;
  }
  document.querySelectorAll("[data-plot]").forEach(function (plot) {
    var data = JSON.parse(plot.querySelector("script").textContent), tip = plot.querySelector(".tip");
    plot.querySelectorAll("svg").forEach(function (svg) {
      var scale = JSON.parse(svg.dataset.scale), px = mapper(scale.x), py = mapper(scale.y);
      var line = svg.querySelector(".cursor"), dots = svg.querySelector(".cursor-dots");
      function leave() { tip.hidden = true; line.setAttribute("d", ""); dots.replaceChildren(); }
      function move(event) {
        var box = svg.getBoundingClientRect(), ratio = svg.viewBox.baseVal.width / box.width;
        var at = (event.clientX - box.left) * ratio, x = null;
        data.series.forEach(function (s) {
          var i = nearest(s.x, px, at);
          if (i >= 0 && (x === null || Math.abs(px(s.x[i]) - at) < Math.abs(px(x) - at))) x = s.x[i];
        });
        if (x === null) return;
        dots.replaceChildren(); tip.replaceChildren();
        var head = document.createElement("b");
        head.textContent = data.x + " " + x.toLocaleString("en");
        tip.append(head);
        data.series.forEach(function (s) {
          var i = nearest(s.x, px, px(x)), y = s.y[i];
          if (y === null || i < 0) return;
          var row = document.createElement("div"), mark = document.createElement("i"), text = document.createElement("span");
          mark.className = s.role; text.textContent = s.label + " " + show(y, data.percent);
          row.append(mark, text); tip.append(row);
          var dot = document.createElementNS("http://www.w3.org/2000/svg", "circle");
          [["class", "dot " + s.role], ["cx", px(s.x[i])], ["cy", py(y)], ["r", 4]].forEach(function (a) { dot.setAttribute(a[0], a[1]); });
          dots.append(dot);
        });
        line.setAttribute("d", "M" + px(x) + " " + scale.top + "V" + scale.bottom);
        tip.hidden = false;
        var left = px(x) / ratio + 14;
        if (left + tip.offsetWidth > box.width) left = px(x) / ratio - tip.offsetWidth - 14;
        tip.style.left = Math.max(0, left) + "px";
      }
      svg.addEventListener("pointermove", move);
      svg.addEventListener("pointerdown", move);
      svg.addEventListener("pointerleave", leave);
    });
  });
})();
