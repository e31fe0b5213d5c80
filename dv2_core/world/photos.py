"""An atlas of photographed objects, none of which any training saw: the subjects of the out-of-domain evaluation.

`python -m dv2_core.world.photos --out photos.safetensors --cache DIR` takes the cut-outs of Tux Paint's stamps (Debian
package `tuxpaint-stamps-default`, GPL-2) and writes them in the format of `dv2_core.world.atlas`. The pictures are for
measuring on the machine that built them; neither they nor sheets that show them belong into this repository. Building
needs `apt-get` and `dpkg-deb`, so Debian or a relative, and Pillow.
"""

import argparse
import io
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .atlas import (
    ALPHA_THRESHOLD,
    COLOUR_NAMES,
    MAX_NAME_WORDS,
    MIN_OPAQUE,
    Atlas,
    Sprite,
    drop_near_duplicates,
    fit_sprite,
    plain_name,
)

PACKAGE = "tuxpaint-stamps-default"
VERSION = "2022.06.04-1"  # the one that the numbers in the documentation were measured on
STAMPS = "/usr/share/tuxpaint/stamps/"
# Drawings, signs and writing; the rest are photographs but for a handful.
DRAWN = re.compile(
    r"/(cartoon|symbols|flags|roadsigns|space|clothes|seasonal|body_parts|naturalforces)/|outline|_mirror$"
)
MANY = re.compile(r"^(pair|bunch|head|glass|bowl|cup|piece|slice|quarter|baby) of (an? )?")
MAX_CAPTION_WORDS = 4  # longer captions tell a story instead of naming the thing


def package_file(cache: Path) -> Path:
    """The Debian package in `cache`, downloaded by apt-get if it is not there."""
    found = sorted(cache.glob(f"{PACKAGE}_*.deb"))
    if not found:
        if shutil.which("apt-get") is None:
            raise ValueError(f"There is no apt-get here; put {PACKAGE}_{VERSION}_all.deb into {cache} by hand.")
        cache.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", f"{PACKAGE}={VERSION}"], cwd=cache, check=True)
        found = sorted(cache.glob(f"{PACKAGE}_*.deb"))
    return found[0]


def read_stamps(package: Path) -> Iterator[tuple[str, str, bytes]]:
    """(path without suffix, English caption, PNG file) of every captioned picture of the package."""
    captions: dict[str, str] = {}
    pictures: dict[str, bytes] = {}
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        with tarfile.open(fileobj=process.stdout, mode="r|") as files:
            for member in files:
                stem, _, suffix = member.name.rpartition(".")
                if STAMPS not in member.name or suffix not in ("txt", "png") or not member.isfile():
                    continue
                file = files.extractfile(member)
                assert file is not None
                if suffix == "png":
                    pictures[stem] = file.read()
                else:  # the first line is English, the others translate it
                    captions[stem] = file.read().decode(errors="replace").split("\n")[0]
    for stem in sorted(pictures):
        if stem in captions:
            yield stem, captions[stem], pictures[stem]


def noun_of(caption: str) -> str:
    """What "A red apple." names, without article and colour: "apple". "" where the caption is no plain name.

    A noun that the miniature's vocabulary lacks becomes its word for the unknown when the caption is read."""
    match = re.fullmatch(r"(?:an?|the|some) ([^.,!?;:()]+)\.?", caption.strip(), re.IGNORECASE)
    if match is None:
        return ""
    name = MANY.sub("", re.sub(r"[“”\"'’]", "", match[1].lower()))
    words = [word for word in plain_name(name).split() if word not in COLOUR_NAMES]
    return " ".join(words) if 0 < len(words) <= min(MAX_CAPTION_WORDS, MAX_NAME_WORDS) else ""


def build_photos(stamps: Iterator[tuple[str, str, bytes]]) -> Atlas:
    """All usable photographs as held-out sprites, one picture per name. Raises ValueError if there are none."""
    from PIL import Image

    kept: dict[str, np.ndarray] = {}
    for stem, caption, png in stamps:
        name = noun_of(caption)
        if DRAWN.search(stem) or not name or name in kept:
            continue
        picture = Image.open(io.BytesIO(png))
        rgba = np.asarray(picture.convert("RGBA"))
        if (rgba[..., 3] > ALPHA_THRESHOLD).all() or not (rgba[..., 3] > ALPHA_THRESHOLD).any():
            continue  # no cut-out
        sprite = fit_sprite(rgba)
        if (sprite[..., 3] > ALPHA_THRESHOLD).mean() >= MIN_OPAQUE:
            kept[name] = sprite
    names = drop_near_duplicates(kept)
    if not names:
        raise ValueError("The package holds no usable photograph; its contents are probably not those of Tux Paint.")
    return Atlas(np.stack([kept[name] for name in names]), [Sprite(n, n, "photo", "GPL-2.0", "test") for n in names])


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the atlas of photographs for the out-of-domain evaluation.")
    parser.add_argument("--out", type=Path, required=True, help="the atlas to write (.safetensors)")
    parser.add_argument("--cache", type=Path, required=True, help="folder for the downloaded Debian package")
    arguments = parser.parse_args()
    atlas = build_photos(read_stamps(package_file(arguments.cache)))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    atlas.save(arguments.out)
    print(f"{len(atlas)} photographs, each of another name")


if __name__ == "__main__":
    main()
