// Runs in the page under test, before its own script, and tells the page around it what it saw.
(function () {
  var seen = { errors: [], violations: [], plots: {}, overlaps: [], outside: [] };
  window.addEventListener('error', function (event) { seen.errors.push(String(event.message)); });
  document.addEventListener('securitypolicyviolation', function (event) {
    seen.violations.push(event.violatedDirective + ' ' + event.blockedURI);
  });

  function drawn(plot) {
    return Array.prototype.filter.call(plot.querySelectorAll('path, rect, circle'), function (mark) {
      if (mark.closest('.hits') || mark.closest('.grid')) return false;
      var box = mark.getBoundingClientRect();
      return box.width + box.height > 0;
    }).length;
  }

  function overlaps(plot) {
    var boxes = Array.prototype.map.call(plot.querySelectorAll('text'), function (text) {
      return { text: text.textContent, box: text.getBoundingClientRect() };
    });
    boxes.forEach(function (a, index) {
      boxes.slice(index + 1).forEach(function (b) {
        var wide = Math.min(a.box.right, b.box.right) - Math.max(a.box.left, b.box.left);
        var high = Math.min(a.box.bottom, b.box.bottom) - Math.max(a.box.top, b.box.top);
        // Lines of text may touch; what is printed may not.
        if (wide > 0.5 && high > 3) seen.overlaps.push((plot.id || 'axis') + ': ' + a.text + ' / ' + b.text);
      });
    });
  }

  // Violations are told a little after they happen, and may be of the last mark of the page.
  window.addEventListener('load', function () { setTimeout(look, 100); });

  function look() {
    document.querySelectorAll('details').forEach(function (details) { details.open = true; });
    document.querySelectorAll('svg[id], p.nothing').forEach(function (plot) {
      seen.plots[plot.id] = plot.tagName === 'P' ? 0 : drawn(plot);
    });
    document.querySelectorAll('svg.plot, svg.map').forEach(overlaps);
    document.querySelectorAll('h1, h2, h3, p, dd, dt, svg, .card, .key span, text').forEach(function (element) {
      if (element.closest('.scroll')) return;
      var box = element.getBoundingClientRect();
      var card = element.closest('.card');
      var room = card ? card.getBoundingClientRect() : { left: 0, right: window.innerWidth };
      if (box.left < room.left - 0.5 || box.right > room.right + 0.5 || box.right > window.innerWidth + 0.5) {
        seen.outside.push(element.tagName + ' ' + (element.id || element.textContent.slice(0, 40)));
      }
    });
    seen.width = window.innerWidth;
    seen.scroll_width = document.documentElement.scrollWidth;
    seen.background = getComputedStyle(document.body).backgroundColor;
    seen.requests = performance.getEntriesByType('resource').map(function (entry) { return entry.name; });
    seen.scripts = document.scripts.length;
    window.parent.postMessage(JSON.stringify(seen), '*');
  }
})();
