"""Pack the pictures of scenes into one file, which tools/demo/train_vae.py reads; the scenes may go then.

python tools/demo/pack_frames.py --scenes demo/train --output demo/frames.npy
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools.demo.vae.frames import open_scenes, pack_frames


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--scenes", type=Path, nargs="+", required=True, metavar="DIR", help="folders of scenes of one size and length"
    )
    parser.add_argument("--output", type=Path, required=True, help="a new .npy file: uint8 (scenes, frames, h, w, 3)")
    return parser.parse_args()


def main() -> int:
    options = parse_arguments()
    try:
        if options.output.suffix != ".npy" or options.output.exists():
            raise ValueError(f"--output {options.output}: expected the name of a new file that ends in .npy")
        pack_frames(open_scenes(options.scenes, "--scenes"), options.output)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{options.output}: {options.output.stat().st_size / 1e6:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
