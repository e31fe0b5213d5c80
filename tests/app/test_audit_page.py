"""Curation's audit page in a real browser, and its verdicts back in the curation."""

import json
import os
import subprocess
from pathlib import Path

from dv2_core.curate.audit import keep_verdicts
from tests.curation import NAMES, rows_of, run, write_folder

SCRIPT = Path(__file__).with_name("audit_page.mjs")
SECONDS = 60


def test_a_person_looks_through_the_page_and_the_verdicts_flow_back(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "videos", NAMES[:4], still=NAMES[3])
    hostile = "</script><script>document.title='x'</script><img src=x onerror=alert(1)>"
    (folder / f"{NAMES[0]}.txt").write_text(hostile)
    (folder / "broken.mp4").write_bytes(b"no video")
    run(folder, tmp_path / "out", audit=10)
    config = {
        "page": str(tmp_path / "out" / "audit.html"), "playwright": os.environ["DV2_PLAYWRIGHT"],
        "chromium": os.environ["DV2_CHROMIUM"], "screenshots": str(tmp_path),
        "download": str(tmp_path / "verdicts.json"),
        "seconds": SECONDS,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    command = [os.environ["DV2_NODE"], str(SCRIPT), str(tmp_path / "config.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=5 * SECONDS)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["groups"] == ["all (5)", "accepted (3)", "broken (1)", "still (1)"]
    assert seen["all"] == ["accepted"] * 3 + ["broken", "still"] and seen["still"] == ["still"]
    assert seen["pictures"] == [[True, "frames of the clip with boxes"]] * 4
    assert hostile in seen["texts"]
    assert (seen["elsewhere"], seen["pageErrors"], seen["name"]) == ([], [], "verdicts.json")
    assert seen["progress"] == seen["kept"] == "3 of 5 judged"

    before = [row.video for row in rows_of(tmp_path / "out")]
    told = keep_verdicts(tmp_path / "out", tmp_path / "verdicts.json")
    counts = run(folder, tmp_path / "out", told)
    after = {row.video: row.phrase for row in rows_of(tmp_path / "out")}
    assert counts.accepted == 3 and f"videos/{NAMES[3]}.mp4" in after and "knight" in after.values()
    assert len(set(before) - set(after)) == 1
