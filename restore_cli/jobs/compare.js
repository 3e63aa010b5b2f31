  /* The slider and the loupe inside `root`; the function it gives shows a pair (jobs/compare.py). */
  function comparison(root) {
    const pair = root.querySelector(".pair"), loupe = root.querySelector(".loupe");
    const pictures = [...pair.querySelectorAll("img")], panes = [...loupe.querySelectorAll("img")];
    const spot = pair.querySelector(".spot"), slider = pair.querySelector("input");
    const buttons = [...root.querySelectorAll(".zooms button")];
    const press = (button) => { for (const one of buttons) one.setAttribute("aria-pressed", String(one === button)); };
    let part = null, full = [1, 1], zoom = 1, centre = [0, 0]; // in pixels of the output
    function draw() {
      if (part === null) return;
      const box = panes[0].parentNode.getBoundingClientRect();
      const starts = [part.left, part.top], sizes = [part.width, part.height];
      const seen = [box.width / zoom, box.height / zoom].map((side, n) => Math.min(side, sizes[n]));
      centre = centre.map((at, n) => Math.max(starts[n] + seen[n] / 2, Math.min(at, starts[n] + sizes[n] - seen[n] / 2)));
      const [x, y] = centre.map((at, n) => Math.round((starts[n] - at) * zoom + [box.width, box.height][n] / 2));
      for (const image of panes) Object.assign(image.style, {
        width: `${part.width * zoom}px`, height: `${part.height * zoom}px`, transform: `translate(${x}px, ${y}px)` });
      const [left, top] = centre.map((at, n) => `${100 * (at - seen[n] / 2) / full[n]}%`);
      const [width, height] = seen.map((side, n) => `${100 * side / full[n]}%`);
      Object.assign(spot.style, { left, top, width, height });
    }
    function move(x, y) { centre = [centre[0] + x, centre[1] + y]; draw(); }
    slider.addEventListener("input", () => pair.style.setProperty("--at", `${slider.value}%`));
    slider.addEventListener("pointermove", (event) => {
      if (event.pointerType !== "mouse" || event.buttons) return;
      const box = pair.getBoundingClientRect();
      centre = [(event.clientX - box.left) / box.width * full[0], (event.clientY - box.top) / box.height * full[1]];
      draw();
    });
    loupe.addEventListener("pointerdown", (event) => loupe.setPointerCapture(event.pointerId));
    loupe.addEventListener("pointermove", (event) => {
      if (event.buttons) move(-event.movementX / zoom, -event.movementY / zoom);
    });
    loupe.addEventListener("keydown", (event) => {
      const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (!way) return;
      event.preventDefault();
      move(40 * way[0] / zoom, 40 * way[1] / zoom);
    });
    for (const button of buttons) button.addEventListener("click", () => {
      zoom = Number(button.value);
      press(button);
      draw();
    });
    new ResizeObserver(draw).observe(loupe);
    return (facts) => {
      part = facts.loupe; full = facts.size.split("x").map(Number); centre = [part.x, part.y];
      ["before", "after"].forEach((side, n) => {
        if (facts[side]) Object.assign(pictures[n], { src: facts[side], width: facts.width, height: facts.height });
        panes[n].src = part[side] || pictures[n].src;
      });
      const [width, height] = ["width", "height"].map((side) => Number(pictures[0].getAttribute(side)));
      // Never blown up, and so that picture and loupe are seen together.
      const shown = Math.min(width, 0.6 * window.innerHeight * width / height);
      // Very tall ones are at most two windows high.
      const least = Math.max(8, Math.min(480, 2 * window.innerHeight * width / height));
      pair.style.maxWidth = `${Math.max(least, shown)}px`;
      loupe.style.maxWidth = `${Math.max(480, shown)}px`;
      const first = pair.clientWidth < 0.8 * full[0] ? buttons[0] : buttons[1]; // seen at 100 % already
      zoom = Number(first.value);
      press(first);
      draw();
    };
  }
