// One slide on the stage: its tiles, what is laid over them, its scale.

import { drawLayers } from "./layers.js";
import { ask, el } from "./page.js";

const OSD = () => window.OpenSeadragon;

export class Pane {
  // handlers: moved(pane), led(pane), clicked(pane, x, y)
  constructor(stage, handlers) {
    this.handlers = handlers;
    this.settings = {};
    this.selected = -1;
    this.data = {};
    this.holder = el("div", { class: "osd" });
    this.canvas = el("canvas", { class: "over" });
    this.ruler = el("div", { class: "ruler" });
    this.scaleText = el("div", {});
    this.scale = el("div", { class: "scale glass", hidden: true }, this.scaleText, this.ruler);
    this.name = el("div", { class: "name glass", hidden: true });
    this.element = el("div", { class: "pane" }, this.holder, this.scale, this.name);
    stage.append(this.element);
  }

  async open(key, place) {
    this.close();
    this.key = key;
    const slide = await ask(`/api/slides/${encodeURIComponent(key)}`);
    if (this.key !== key) return null;
    this.slide = slide;
    if (slide.problem) {
      this.tell(slide.problem, slide.thumbnail && `/api/slides/${slide.key}/thumbnail.jpg`);
      return slide;
    }
    this.data = { width: slide.width, height: slide.height };
    this.view(slide, place);
    return slide;
  }

  view(slide, place) {
    const small = Math.max(Math.ceil(slide.width / slide.tile_width), Math.ceil(slide.height / slide.tile_height));
    const viewer = OSD()({
      element: this.holder,
      tileSources: {
        width: slide.width,
        height: slide.height,
        tileWidth: slide.tile_width,
        tileHeight: slide.tile_height,
        tileOverlap: 0,
        minLevel: Math.max(0, slide.max_level - Math.ceil(Math.log2(Math.max(1, small)))),
        maxLevel: slide.max_level,
        getTileUrl: (level, x, y) => `/api/slides/${slide.key}/tiles/${level}/${x}_${y}.jpg?v=${slide.version}`,
      },
      drawer: "canvas",
      showNavigationControl: false,
      showNavigator: true,
      navigatorPosition: "BOTTOM_RIGHT",
      navigatorAutoFade: false,
      navigatorSizeRatio: 0.16,
      navigatorDisplayRegionColor: "#c8553d",
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
      gestureSettingsTouch: { clickToZoom: false, dblClickToZoom: true, pinchRotate: false },
      keyboardNavEnabled: false,
      animationTime: 0.6,
      blendTime: 0.12,
      maxZoomPixelRatio: 4,
      minZoomImageRatio: 0.7,
      visibilityRatio: 0.3,
      imageLoaderLimit: 8,
      maxImageCacheCount: 500,
      timeout: 60000,
      placeholderFillStyle: "#ffffff",
    });
    this.viewer = viewer;
    viewer.canvas.append(this.canvas);
    viewer.addHandler("open", () => {
      if (place) this.goTo(place, true);
      this.ready = true;
      this.draw();
      this.handlers.moved(this);
    });
    viewer.addHandler("canvas-key", (event) => {
      event.preventDefaultAction = true;
    });
    for (const name of ["update-viewport", "resize", "animation"]) viewer.addHandler(name, () => this.draw());
    viewer.addHandler("viewport-change", () => this.ready && this.handlers.led(this));
    viewer.addHandler("animation-finish", () => this.handlers.moved(this));
    for (const name of ["canvas-press", "canvas-scroll", "canvas-pinch"]) {
      viewer.addHandler(name, () => this.handlers.led(this, true));
    }
    viewer.addHandler("canvas-click", (event) => {
      if (!event.quick) return;
      const at = this.item()?.viewerElementToImageCoordinates(event.position);
      if (at) this.handlers.clicked(this, at.x, at.y);
    });
  }

  tell(problem, picture) {
    this.message = el("div", { class: "problem" }, picture && el("img", { src: picture, alt: "" }), el("div", {}, problem));
    this.element.append(this.message);
  }

  close() {
    this.ready = false;
    this.viewer?.destroy();
    this.viewer = null;
    this.message?.remove();
    this.selected = -1;
    this.data = {};
    this.scale.hidden = true;
  }

  remove() {
    this.close();
    this.element.remove();
  }

  item() {
    return this.viewer?.world.getItemAt(0) || null;
  }

  // Where one looks: the middle in level-0 px, and level-0 px a screen px.
  place() {
    const item = this.item();
    if (!item || !this.ready) return null;
    const middle = item.viewportToImageCoordinates(this.viewer.viewport.getCenter(false));
    return { x: middle.x, y: middle.y, r: 1 / item.viewportToImageZoom(this.viewer.viewport.getZoom(false)) };
  }

  goTo({ x, y, r }, now = false) {
    const item = this.item();
    if (!item || ![x, y, r].every(Number.isFinite) || r <= 0) return;
    this.viewer.viewport.zoomTo(item.imageToViewportZoom(1 / r), null, now);
    this.viewer.viewport.panTo(item.imageToViewportCoordinates(new (OSD().Point)(x, y)), now);
    if (!now) this.viewer.viewport.applyConstraints(now);
  }

  home() {
    this.viewer?.viewport.goHome();
  }

  zoomBy(factor) {
    this.viewer?.viewport.zoomBy(factor);
    this.viewer?.viewport.applyConstraints();
  }

  panBy(x, y) {
    if (!this.viewer) return;
    const bounds = this.viewer.viewport.getBounds();
    this.viewer.viewport.panBy(new (OSD().Point)((x * bounds.width) / 5, (y * bounds.height) / 5));
    this.viewer.viewport.applyConstraints();
  }

  draw() {
    const item = this.item();
    if (!item || !this.viewer) return;
    const { clientWidth: width, clientHeight: height } = this.holder;
    const ratio = window.devicePixelRatio || 1;
    if (this.canvas.width !== Math.round(width * ratio) || this.canvas.height !== Math.round(height * ratio)) {
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(height * ratio);
    }
    const Point = OSD().Point;
    const zero = item.imageToViewerElementCoordinates(new Point(0, 0));
    const far = item.imageToViewerElementCoordinates(new Point(this.slide.width, 0));
    const scale = (far.x - zero.x) / this.slide.width;
    const view = {
      scale,
      x: (px) => zero.x + px * scale,
      y: (px) => zero.y + px * scale,
      left: -zero.x / scale,
      top: -zero.y / scale,
      right: (width - zero.x) / scale,
      bottom: (height - zero.y) / scale,
    };
    const context = this.canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    drawLayers(context, view, this.data, this.settings, this.selected);
    this.drawScale(scale);
  }

  drawScale(scale) {
    const mpp = this.slide.mpp;
    const perPx = (mpp || 1) / scale;
    const wanted = perPx * 130;
    const power = 10 ** Math.floor(Math.log10(wanted));
    const length = [5, 2, 1].map((n) => n * power).find((n) => n <= wanted) || power;
    this.ruler.style.width = `${length / perPx}px`;
    const told = mpp ? (length >= 1000 ? `${length / 1000} mm` : `${length} µm`) : `${length} px`;
    const times = 10 / perPx;
    const shown = times >= 10 ? Math.round(times) : times.toPrecision(2).replace(/\.?0+$/, "");
    this.scaleText.textContent = mpp ? `${told} · ${shown}×` : `${told} · scale unknown`;
    this.scale.hidden = false;
  }
}
