// The picture or video under the boxes: of the connected loader at once, of anything else after a run.

const IMAGE = /\.(png|jpe?g|webp|gif|bmp|avif)$/i;
const USUAL_RATE = 24;
const VIDEO = /\.(mp4|webm|mov|mkv|m4v|ogv)$/i;

/** Whether a file's name is that of a picture or video that a page can show. */
export const isMedia = (name) => IMAGE.test(name) || VIDEO.test(name);

export class Background {
  #key = "";
  #picture = null;
  #video = null;
  #frames = [];
  #awaited = null; // frames on their way: what is shown stays until they are there

  /** `redraw()` is called when a picture has arrived. */
  constructor(redraw) {
    this.redraw = redraw;
  }

  /** The file of the connected loader, { name, url }, or null: no background. The same file again changes nothing. */
  setFile(file) {
    const key = file?.url ?? "";
    if (key === this.#key && (file || !this.#frames.length)) return;
    this.#clear();
    this.#key = key;
    if (file && VIDEO.test(file.name)) this.#loadVideo(file.url);
    else if (file) this.#picture = this.#load(file.url);
    this.redraw();
  }

  /** What the node saw when it ran: [{ url, frame }], frames ascending. Shown until another file is chosen, or none. */
  setFrames(frames) {
    const awaited = frames.map(({ url, frame }) => ({ frame, picture: this.#load(url) }));
    this.#awaited = awaited;
    Promise.allSettled(awaited.map(({ picture }) => picture.decode())).then(() => {
      if (this.#awaited !== awaited) return; // another run or another file came in between
      const key = this.#key;
      this.#clear();
      [this.#key, this.#frames] = [key, awaited];
      this.redraw();
    });
  }

  /** What to draw for a frame of `length`, or null while there is nothing. */
  at(frame, length) {
    if (this.#frames.length) {
      const entry = this.#frames.findLast((candidate) => candidate.frame <= frame) ?? this.#frames[0];
      return ready(entry.picture);
    }
    if (this.#video) return this.#seek(length > 1 ? frame / (length - 1) : 0);
    return ready(this.#picture);
  }

  #clear() {
    if (this.#video) this.#video.removeAttribute("src");
    [this.#key, this.#picture, this.#video, this.#frames, this.#awaited] = ["", null, null, [], null];
  }

  #load(url) {
    const picture = new Image();
    picture.onload = () => this.redraw();
    picture.src = url;
    return picture;
  }

  #loadVideo(url) {
    const video = Object.assign(document.createElement("video"), { muted: true, preload: "auto", playsInline: true });
    this.#video = video;
    video.onseeked = () => this.redraw();
    video.onloadeddata = async () => {
      video.onloadeddata = null;
      video.dataset.rate = await measureRate(video);
      this.redraw();
    };
    video.src = url;
  }

  /** The video, on its way to a part (0..1) of it: as in a run, first frame on first and last on last. */
  #seek(part) {
    const video = this.#video;
    if (video.readyState < 2) return null;
    const rate = Number(video.dataset.rate);
    if (!rate) return video; // still being measured
    const last = Math.max(Math.round(video.duration * rate) - 1, 0);
    const time = (Math.round(part * last) + 0.5) / rate; // the middle of a frame, safe from rounding
    if (!video.seeking && Math.abs(video.currentTime - time) > 0.25 / rate) video.currentTime = time;
    return video;
  }
}

const ready = (picture) => (picture?.complete && picture.naturalWidth ? picture : null);

/** Frames per second of a video, from the times of its first frames; USUAL_RATE where the browser does not tell. */
async function measureRate(video) {
  if (!video.requestVideoFrameCallback) return USUAL_RATE;
  const times = [];
  await new Promise((resolve) => {
    const timer = setTimeout(resolve, 1500); // a still, or one that does not play here
    const see = (_, { mediaTime }) => {
      times.push(mediaTime);
      if (times.length < 8) return video.requestVideoFrameCallback(see);
      clearTimeout(timer);
      resolve();
    };
    video.requestVideoFrameCallback(see);
    video.onended = resolve;
    video.play().catch(resolve);
  });
  video.pause();
  const gaps = times.slice(1).map((time, i) => time - times[i]).filter((gap) => gap > 0.001);
  return gaps.length ? Math.round(100 / Math.min(...gaps)) / 100 : USUAL_RATE; // a dropped frame makes a gap longer
}
