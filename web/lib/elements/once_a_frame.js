/** ``onceAFrame(draw)`` is called as often as one likes, and draws when the next frame is due. */
export function onceAFrame(draw) {
  let waiting = 0;
  return () => {
    waiting ||= requestAnimationFrame(() => {
      waiting = 0;
      draw();
    });
  };
}
