"""Train and test any RecBole model, ours included, from the command line."""

import argparse
import sys

import recbole_mars  # noqa: F401 - registers the models, in spawned processes too

EPILOG = """
Every other --key=value goes to RecBole's configuration and overrides the YAML files, for example
  --learning_rate=0.01 --epochs=5 --text_fields="['movie_title','class']" --augmentation=none
The keys that recbole_mars adds, with their defaults, are in properties/overall.yaml.

Examples
  python run_recbole_mars.py --model=MARS --dataset=ml-100k --image_dir=covers
  python run_recbole_mars.py --model=DIN --dataset=ml-100k
  python run_recbole_mars.py --model=MARS --dataset=my-data --config_files="a.yaml b.yaml"
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", "-m", default="MARS", help="model name (default: MARS)")
    parser.add_argument("--dataset", "-d", default="ml-100k", help="data set (default: ml-100k)")
    parser.add_argument("--config_files", default=None, help="YAML files, separated by spaces")
    parser.add_argument("--nproc", type=int, default=1, help="processes on this machine")
    parser.add_argument("--ip", default="localhost", help="address of the master process")
    parser.add_argument("--port", default="5678", help="port of the master process")
    parser.add_argument("--world_size", type=int, default=-1, help="processes on all machines")
    parser.add_argument(
        "--group_offset", type=int, default=0, help="rank of the first process here"
    )
    args, others = parser.parse_known_args()
    wrong = [arg for arg in others if not arg.startswith("--") or arg.count("=") != 1]
    if wrong:
        parser.error(f"{wrong[0]!r} is not of the form --key=value")
    sys.argv = [sys.argv[0], *others]

    from recbole.quick_start import run

    from recbole_mars.plugin.mistakes import is_a_mistake

    try:
        run(
            args.model,
            args.dataset,
            config_file_list=args.config_files.split() if args.config_files else None,
            nproc=args.nproc,
            world_size=args.world_size,
            ip=args.ip,
            port=args.port,
            group_offset=args.group_offset,
        )
    except (OSError, ValueError) as error:
        if not is_a_mistake(error):
            raise
        parser.exit(2, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
