"use strict";
// Plays the iterations of EM: which expert each row trusts most, and how well every expert does.
for (const part of document.querySelectorAll('.live[data-live="slider.js"]')) {
  const data = JSON.parse(part.querySelector('script[type="application/json"]').textContent);
  const points = [...part.querySelectorAll(".points use")];
  const key = points.length ? points[0].getAttribute("href").match(/^#f\d+/)[0] : "";
  const range = part.querySelector('input[type="range"]');
  const button = part.querySelector("button");
  const bars = [...part.querySelectorAll(".bars > div")];
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const last = data.iterations.length - 1;
  let timer = 0;

  const text = error => Math.abs(error) < 100 ? error.toFixed(3)
    : Math.abs(error) < 1e4 ? String(Number(error.toPrecision(4))) : Math.round(error).toLocaleString("en");

  function show(frame) {
    const weights = data.weights[frame];
    points.forEach((point, row) => {
      let lead = 0;
      for (let k = 1; k < data.experts; k++) {
        if (weights[row * data.experts + k] > weights[row * data.experts + lead]) lead = k;
      }
      point.setAttribute("href", key + data.marks[lead % data.marks.length]);
      point.style.fill = data.colours[lead % data.colours.length];
      point.style.fillOpacity = (0.2 + 0.8 * weights[row * data.experts + lead] / 1e4).toFixed(2);
    });
    bars.forEach((bar, k) => {
      const error = data.errors[frame][k];
      bar.querySelector(".bar i").style.width = error === null ? "0" : `${100 * error / (data.largest || 1)}%`;
      bar.querySelector(".figure").textContent = error === null ? "–" : text(error);
    });
    part.querySelector('[data-is="iteration"]').textContent = data.iterations[frame];
    part.querySelector('[data-is="log-likelihood"]').textContent = data.logLikelihoods[frame]?.toFixed(3) ?? "–";
    range.setAttribute("aria-valuetext", `iteration ${data.iterations[frame]}`);
  }

  function stop() {
    clearInterval(timer);
    timer = 0;
    button.textContent = "Play";
  }

  function step() {
    range.value = Number(range.value) + 1;
    show(Number(range.value));
    if (Number(range.value) >= last) stop();
  }

  function play() {
    if (timer) return stop();
    if (Number(range.value) >= last) {
      range.value = 0;
      show(0);
    }
    button.textContent = "Pause";
    timer = setInterval(step, 250);
  }

  function calm() { // who wants no motion moves the slider by hand
    stop();
    button.hidden = still.matches || last === 0;
  }

  button.addEventListener("click", play);
  range.addEventListener("input", () => { stop(); show(Number(range.value)); });
  still.addEventListener("change", calm);
  calm();
  range.value = last;
  show(last);
  part.querySelector(".play").hidden = false;
}
