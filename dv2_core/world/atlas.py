"""The sprite atlas of the mini-world: named 64x64 RGBA subjects from two permissively licensed emoji sets.

`python -m dv2_core.world.atlas --out atlas.safetensors --cache DIR` downloads the pinned npm packages into DIR, renders
and joins them by Unicode code point, removes near-duplicates, splits train and test *by concept* and writes one file.
Building needs `npm`, Pillow and `resvg-py`; reading an atlas needs only torch, numpy and safetensors.
"""

import argparse
import io
import json
import re
import subprocess
import tarfile
import unicodedata
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

SPRITE_SIZE = 64
ALPHA_THRESHOLD = 40  # of 255: a pixel more opaque than this belongs to the subject
MIN_OPAQUE = 0.08  # of the sprite's square; thinner drawings vanish at the sizes the clips use
MAX_NAME_WORDS = 6  # the longest caption then fits the text encoder's 16 tokens
TEST_CONCEPTS = 140
SPLIT_SEED = 20240
NEAR_DUPLICATE_RMSE = 0.105

NOTO = "@iconify-json/noto@1.2.9"
FLUENT = "@lobehub/fluent-emoji-3d@1.1.0"
NAMES = "unicode-emoji-json@0.9.0"  # MIT: names and groups, no art
LICENCES = {"noto": "Apache-2.0", "fluent-3d": "MIT"}

FIXED_COLOURS = {"photo", "picture"}  # styles whose hue the clips leave as it is

EXCLUDED_GROUPS = {"Symbols", "Flags", "Component"}
EXCLUDED_NAMES = {"middle finger", "leafy"}  # an insult; what is left of "leafy green"
COLOUR_NAMES = {"red", "orange", "yellow", "green", "blue", "purple", "brown", "black", "white", "grey", "gray", "pink"}
COLOUR_NAMES |= {"light"}  # as in "light blue heart"
GENDER_NAMES = {"man", "woman", "men", "women", "person", "people", "boy", "girl", "child", "mr", "mrs", "mx"}
# Families of pictures that differ by a clock hand, a shadow or a hairdo: one member, or none, stays.
FAMILIES = (
    (re.compile(r"\b(oclock|thirty)$"), None),
    (re.compile(r"\bmoon\b"), "crescent moon"),
    (re.compile(r"^(family|couple|kiss)\b"), None),
    (re.compile(r"\b(facing right|skin tone|hair|bald|beard|blond)\b"), None),
    (re.compile(r"\bholding hands\b"), "people holding hands"),
    (re.compile(r"^globe showing"), "globe showing americas"),
    (re.compile(r"\bmailbox\b"), "closed mailbox with raised flag"),
)


@dataclass(frozen=True)
class Sprite:
    """One picture of one concept. `concept` is its Unicode code points in hex, the unit of the train/test split."""

    concept: str
    name: str
    style: str
    licence: str
    split: str


class Atlas:
    """RGBA sprites with names. `rgba` uint8 [N, 64, 64, 4] (straight alpha), `sprites` the N records, same order."""

    def __init__(self, rgba: np.ndarray, sprites: list[Sprite]):
        if rgba.ndim != 4 or rgba.shape[-1] != 4 or rgba.dtype != np.uint8:
            raise ValueError(
                f"An atlas needs uint8 [N, H, W, 4] sprites; it was given {rgba.dtype} {list(rgba.shape)}."
            )
        if len(rgba) != len(sprites):
            raise ValueError(f"An atlas needs one record per sprite; it was given {len(rgba)} and {len(sprites)}.")
        self.rgba = rgba
        self.sprites = sprites

    def __len__(self) -> int:
        return len(self.sprites)

    def indices(self, split: str) -> list[int]:
        """Positions of the sprites of `split` ("train" or "test"). Raises ValueError if there are none."""
        chosen = [i for i, sprite in enumerate(self.sprites) if sprite.split == split]
        if not chosen:
            raise ValueError(f"The atlas holds no sprite of the split {split!r}; it knows 'train' and 'test'.")
        return chosen

    def names(self) -> list[str]:
        """Every concept name once, sorted."""
        return sorted({sprite.name for sprite in self.sprites})

    def crop(self, index: int) -> torch.Tensor:
        """Sprite `index` without its transparent border: float32 [4, h, w] in 0..1, straight alpha."""
        pixels = crop_to_alpha(self.rgba[index])  # [h, w, 4]
        return torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1).contiguous()

    def save(self, path: str | Path) -> None:
        records = [asdict(sprite) for sprite in self.sprites]
        metadata = {"format": "dv2-atlas-1", "sprites": json.dumps(records), "split_seed": str(SPLIT_SEED)}
        save_file({"rgba": np.ascontiguousarray(self.rgba)}, str(path), metadata=metadata)

    @classmethod
    def load(cls, path: str | Path) -> "Atlas":
        with safe_open(str(path), framework="numpy") as file:
            metadata = file.metadata() or {}
            if "sprites" not in metadata:
                raise ValueError(f"{path} is not a sprite atlas; build one with python -m dv2_core.world.atlas.")
            return cls(file.get_tensor("rgba"), [Sprite(**record) for record in json.loads(metadata["sprites"])])


def crop_to_alpha(rgba: np.ndarray) -> np.ndarray:
    """[H, W, 4] uint8 -> the tight rectangle of its opaque pixels. Raises ValueError on an empty picture."""
    opaque = rgba[..., 3] > ALPHA_THRESHOLD
    if not opaque.any():
        raise ValueError("The picture has no opaque pixel, so there is no subject to crop.")
    rows, columns = np.flatnonzero(opaque.any(1)), np.flatnonzero(opaque.any(0))
    return rgba[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def fit_sprite(rgba: np.ndarray) -> np.ndarray:
    """Crop a picture to its subject and fit it, longest side first, into the centre of [64, 64, 4] uint8."""
    from PIL import Image

    cropped = Image.fromarray(crop_to_alpha(rgba), "RGBA")
    scale = SPRITE_SIZE / max(cropped.size)
    width, height = (max(1, round(side * scale)) for side in cropped.size)
    canvas = Image.new("RGBA", (SPRITE_SIZE, SPRITE_SIZE))
    resized = cropped.resize((width, height), Image.Resampling.LANCZOS)
    canvas.paste(resized, ((SPRITE_SIZE - width) // 2, (SPRITE_SIZE - height) // 2))
    return np.asarray(canvas)


# --- reading the packages ---------------------------------------------------------------------------------------------


def open_package(spec: str, cache: Path) -> tarfile.TarFile:
    """Open the npm package `name@version` (downloaded into `cache` by `npm pack` once)."""
    name, version = spec.rsplit("@", 1)
    path = cache / f"{name.removeprefix('@').replace('/', '-')}-{version}.tgz"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "pack", spec, "--silent"], cwd=cache, check=True, stdout=subprocess.DEVNULL)
    return tarfile.open(path)


def read_json(package: tarfile.TarFile, member: str) -> dict:
    file = package.extractfile(f"package/{member}")
    if file is None:
        raise ValueError(f"{package.name} holds no {member}; the pinned package version is probably a wrong one.")
    return json.load(file)


def hexcode(emoji: str) -> str:
    return normalise_hexcode("-".join(f"{ord(character):x}" for character in emoji))


def normalise_hexcode(code: str) -> str:
    """Lower case and without the variation selector fe0f, which the packages write or leave out at will."""
    return "-".join(part for part in code.lower().split("-") if part != "fe0f")


def plain_name(name: str) -> str:
    """ASCII lower-case words without colour words: sprites change their hue, so a name must not promise one."""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return " ".join(word for word in re.findall(r"[a-z0-9]+", ascii_name) if word not in COLOUR_NAMES)


def read_concepts(package: tarfile.TarFile) -> dict[str, str]:
    """hexcode -> name of every concept worth keeping, one per family of names."""
    rows = [(hexcode(emoji), row) for emoji, row in read_json(package, "data-by-emoji.json").items()]
    rows = [(code, plain_name(row["name"])) for code, row in rows if row["group"] not in EXCLUDED_GROUPS]
    # "firefighter" comes before "man firefighter", so that the shortest name of a family is the one that stays
    order = sorted(range(len(rows)), key=lambda i: (len(set(rows[i][1].split()) & (GENDER_NAMES - {"person"})), i))
    kept: dict[str, str] = {}
    keys: set[tuple[str, ...]] = set()
    for code, name in (rows[i] for i in order):
        key = tuple(sorted(word for word in name.split() if word not in GENDER_NAMES)) or ("person",)
        family = next((keep for pattern, keep in FAMILIES if pattern.search(name)), name)
        fits = 0 < len(name.split()) <= MAX_NAME_WORDS and name not in EXCLUDED_NAMES
        if not fits or family != name or key in keys:
            continue
        keys.add(key)
        kept[code] = name
    return kept


def read_noto(package: tarfile.TarFile) -> Iterator[tuple[str, np.ndarray]]:
    import resvg_py
    from PIL import Image

    icons, slugs = read_json(package, "icons.json"), read_json(package, "chars.json")
    for code, slug in slugs.items():
        icon = icons["icons"].get(slug)
        if icon is None:
            continue
        left, top = icon.get("left", 0), icon.get("top", 0)
        width, height = (icon.get(side, icons.get(side, 16)) for side in ("width", "height"))
        svg = (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{left} {top} {width} {height}">{icon["body"]}</svg>'
        )
        png = resvg_py.svg_to_bytes(svg_string=svg, width=2 * SPRITE_SIZE)
        yield normalise_hexcode(code), np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGBA"))


def read_fluent(package: tarfile.TarFile, wanted: set[str]) -> Iterator[tuple[str, np.ndarray]]:
    from PIL import Image

    for member in package:
        code = normalise_hexcode(Path(member.name).stem)
        if member.name.endswith(".webp") and code in wanted:
            file = package.extractfile(member)
            assert file is not None
            yield code, np.asarray(Image.open(io.BytesIO(file.read())).convert("RGBA"))


# --- choosing and splitting -------------------------------------------------------------------------------------------


def drop_near_duplicates(pictures: dict[str, np.ndarray]) -> list[str]:
    """Greedily keep the codes whose picture differs from every kept one (and its mirror) on grey, without colour.

    Colour is ignored because the clips rotate hues: two hearts of different colours are the same subject."""
    kept: list[str] = []
    seen = np.zeros((0, 2 * 16 * 16), np.float32)
    for code, rgba in pictures.items():
        pixels = rgba.astype(np.float32) / 255
        alpha = pixels[..., 3]
        luma = pixels[..., :3] @ np.array([0.299, 0.587, 0.114], np.float32)
        features = np.stack([luma * alpha + 0.5 * (1 - alpha), alpha])  # [2, 64, 64]
        features = features.reshape(2, 16, 4, 16, 4).mean((2, 4))  # [2, 16, 16]
        views = (features, features[..., ::-1])
        if len(seen) and any(np.sqrt(((seen - v.reshape(-1)) ** 2).mean(1).min()) < NEAR_DUPLICATE_RMSE for v in views):
            continue
        seen = np.concatenate([seen, features.reshape(1, -1)])
        kept.append(code)
    return kept


def split_concepts(concepts: dict[str, str], test_concepts: int = TEST_CONCEPTS, seed: int = SPLIT_SEED) -> set[str]:
    """The hexcodes held out for testing: a seeded permutation of the concepts, in all styles at once.

    "cat" and "cat face" go to the same side: the second would give the first away."""
    families: dict[str, list[str]] = {}
    for code in sorted(concepts):
        families.setdefault(concepts[code].removesuffix(" face"), []).append(code)
    order = np.random.default_rng(seed).permutation(len(families))
    members = list(families.values())
    held_out: set[str] = set()
    for position in order:
        if len(held_out) >= test_concepts:
            break
        held_out.update(members[position])
    return held_out


def build_atlas(cache: Path) -> Atlas:
    """Read the packages, choose the concepts, split them."""
    concepts = read_concepts(open_package(NAMES, cache))
    styles: dict[str, dict[str, np.ndarray]] = {"noto": {}, "fluent-3d": {}}
    noto, fluent = open_package(NOTO, cache), open_package(FLUENT, cache)
    for style, pictures in (("noto", read_noto(noto)), ("fluent-3d", read_fluent(fluent, set(concepts)))):
        for code, rgba in pictures:
            if code in concepts:
                sprite = fit_sprite(rgba)
                if (sprite[..., 3] > ALPHA_THRESHOLD).mean() >= MIN_OPAQUE:
                    styles[style][code] = sprite
    in_order = {code: styles["noto"][code] for code in concepts if code in styles["noto"]}
    kept = drop_near_duplicates(in_order)
    held_out = split_concepts({code: concepts[code] for code in kept})
    sprites, pixels = [], []
    for code in kept:
        for style, pictures in styles.items():
            if code in pictures:
                split = "test" if code in held_out else "train"
                sprites.append(Sprite(code, concepts[code], style, LICENCES[style], split))
                pixels.append(pictures[code])
    return Atlas(np.stack(pixels), sprites)


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the sprite atlas of the mini-world.")
    parser.add_argument("--out", type=Path, required=True, help="the atlas to write (.safetensors)")
    parser.add_argument("--cache", type=Path, required=True, help="folder for the downloaded npm packages")
    arguments = parser.parse_args()
    atlas = build_atlas(arguments.cache)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    atlas.save(arguments.out)
    for split in ("train", "test"):
        rows = atlas.indices(split)
        print(f"{split}: {len(rows)} sprites of {len({atlas.sprites[i].concept for i in rows})} concepts")


if __name__ == "__main__":
    main()
