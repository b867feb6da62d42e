#!/usr/bin/env python3
"""A boot and a session in lockstep with the interpreter: no difference. The whole of it, every block each time it runs,
takes minutes:

    tests/boot/verify.py --kernel 686 --which every=1"""
import sys

from harness import Machine, Score, command, options, skip

SESSION = """i=0; while [ $i -lt 50 ]; do i=$(busybox expr $i + 1); done; echo $i
busybox seq 1 20000 | busybox sort -n | busybox md5sum
busybox awk 'BEGIN { for (i = 0; i < 5000; i++) s += i / 7; printf "%.3f\\n", s }'
(busybox sleep 0; exit 3) & wait $!; echo $?"""


def more_options(parser):
    parser.add_argument("--which", default="every=1000,first=8", help="value of --verify (default: %(default)s)")


def main():
    arguments = options(__doc__, more_options)
    if arguments.vmm == "qemu" or arguments.accel != "bt":
        skip("only the translator has something to compare")
    arguments.slow = 5 if "first" in arguments.which else 40
    score = Score()
    line = command(arguments, memory="256", extra=("--verify=" + arguments.which, "--stats"))
    with Machine(arguments, line) as vm:
        score.note(f"prompt after {vm.prompt():.1f} s")
        text = vm.shell(SESSION.replace("\n", "; "), 60).text
        score.equal("what the session printed", text,
                    "50\ne071f707df7bbeee2a6a1eb48011ddd0  -\n1785357.143\n3")
        status = vm.finish()
        log = vm.log.decode(errors="replace").replace("\r", "")
    score.check("no difference", status == 0 and "bt86: verify" not in log, f"status {status}\n" + vm.tail(80))
    compared = [row.split()[-1] for row in log.splitlines() if "blocks compared" in row]
    score.check("blocks were compared", compared and int(compared[0]) > 500000, str(compared))
    for row in log[log.rfind("\nverify:"):].splitlines()[2:9]:
        score.note(row.strip())
    score.end()


if __name__ == "__main__":
    sys.exit(main())
