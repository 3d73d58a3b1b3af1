// Shows at once what a browser shows of a <title> after a while. The page lacks nothing without it.
(function () {
  'use strict';
  var tip = document.createElement('div');
  tip.className = 'tip';
  tip.hidden = true;
  document.body.appendChild(tip);
  document.querySelectorAll('svg title').forEach(function (title) {
    var mark = title.parentNode;
    mark.setAttribute('aria-label', title.textContent);
    mark.setAttribute('data-tip', title.textContent);
    mark.removeChild(title);
  });
  document.addEventListener('pointermove', function (event) {
    var mark = event.target.closest ? event.target.closest('[data-tip]') : null;
    tip.hidden = !mark;
    if (!mark) return;
    tip.textContent = mark.getAttribute('data-tip');
    var x = Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8);
    var y = event.clientY + 16;
    if (y + tip.offsetHeight > window.innerHeight - 8) y = event.clientY - tip.offsetHeight - 12;
    tip.style.transform = 'translate(' + Math.max(8, x) + 'px,' + Math.max(8, y) + 'px)';
  });
  document.addEventListener('pointerleave', function () { tip.hidden = true; });
})();
