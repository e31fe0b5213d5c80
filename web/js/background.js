// The picture or video under the boxes: of the connected loader at once, of anything else after a run.

const IMAGE = /\.(png|jpe?g|webp|gif|bmp|avif)$/i;
const VIDEO = /\.(mp4|webm|mov|mkv|m4v|ogv)$/i;

/** Whether a file's name is that of a picture or video that a page can show. */
export const isMedia = (name) => IMAGE.test(name) || VIDEO.test(name);

export class Background {
  #key = "";
  #picture = null;
  #video = null;
  #frames = [];

  /** `redraw()` is called when a picture has arrived. */
  constructor(redraw) {
    this.redraw = redraw;
  }

  /** The file of the connected loader, { name, url } or null. The same file again changes nothing. */
  setFile(file) {
    const key = file?.url ?? "";
    if (key === this.#key) return;
    this.#clear();
    this.#key = key;
    if (file && VIDEO.test(file.name)) this.#loadVideo(file.url);
    else if (file) this.#picture = this.#load(file.url);
    this.redraw();
  }

  /** What the node saw when it ran: [{ url, frame }], frames ascending. Shown until another file is chosen. */
  setFrames(frames) {
    const key = this.#key;
    this.#clear();
    this.#key = key;
    this.#frames = frames.map(({ url, frame }) => ({ frame, picture: this.#load(url) }));
  }

  /** No background any more. */
  clear() {
    this.#clear();
    this.redraw();
  }

  /** What to draw for a frame, or null while there is nothing. */
  at(frame, fps) {
    if (this.#frames.length) {
      const entry = this.#frames.findLast((candidate) => candidate.frame <= frame) ?? this.#frames[0];
      return ready(entry.picture);
    }
    if (this.#video) return this.#seek(frame, fps);
    return ready(this.#picture);
  }

  #clear() {
    if (this.#video) this.#video.removeAttribute("src");
    [this.#key, this.#picture, this.#video, this.#frames] = ["", null, null, []];
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
      video.dataset.fps = (await measureRate(video)) || "";
      this.redraw();
    };
    video.src = url;
  }

  /** The video, on its way to a frame: a frame of the boxes is a frame of the file. */
  #seek(frame, fps) {
    const video = this.#video;
    if (video.dataset.fps === undefined || video.readyState < 2) return video.readyState < 2 ? null : video;
    const rate = Number(video.dataset.fps) || fps;
    const time = Math.min((frame + 0.5) / rate, Math.max(video.duration - 0.5 / rate, 0));
    if (!video.seeking && Math.abs(video.currentTime - time) > 0.25 / rate) video.currentTime = time;
    return video;
  }
}

const ready = (picture) => (picture?.complete && picture.naturalWidth ? picture : null);

/** Frames per second of a video, from the times of its first frames; 0 where the browser does not tell. */
async function measureRate(video) {
  if (!video.requestVideoFrameCallback) return 0;
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
  return gaps.length ? Math.round(100 / Math.min(...gaps)) / 100 : 0; // a dropped frame makes a gap longer, never shorter
}
