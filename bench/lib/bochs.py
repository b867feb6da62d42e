"""Bochs boots from a floppy disk only: its image, and its configuration. It is run without a screen (a VNC server that
nobody calls) and, where it was built with its debugger, told to continue."""
import os
import struct

SECTOR, FLOPPY = 512, 2880
CONFIGURATION = """\
megs: 64
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
floppya: 1_44={disk}, status=inserted
boot: floppy
display_library: rfb, options="timeout=0"
com1: enabled=1, mode=file, dev=/dev/stdout
speaker: enabled=0
sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy
clock: sync=none
log: {directory}/log
panic: action=fatal
error: action=report
info: action=ignore
"""


def flat_image(path):
    """(entry, bytes that go to 1 MiB) of an ELF file with one segment."""
    with open(path, "rb") as file:
        elf = file.read()
    entry, table = struct.unpack_from("<2I", elf, 24)
    _, offset, _, physical, size = struct.unpack_from("<5I", elf, table)
    if physical != 0x100000:
        raise RuntimeError(f"{path} is not loaded at 1 MiB")
    return entry, elf[offset:offset + size]


def make_disk(path, boot_sector, elf, words):
    entry, image = flat_image(elf)
    with open(boot_sector, "rb") as file:
        sector = bytearray(file.read(SECTOR))
    body = words.encode().ljust(SECTOR, b"\0") + image
    sectors = -(-len(body) // SECTOR)
    struct.pack_into("<IH", sector, 504, entry, sectors)
    with open(path, "wb") as file:
        file.write((bytes(sector) + body).ljust(FLOPPY * SECTOR, b"\0"))


def line(programs, words, directory):
    """The command; what the guest prints goes to standard output. The directory holds what it needs while it runs."""
    disk, configuration, commands = (os.path.join(directory, name) for name in ("disk", "bochsrc", "commands"))
    make_disk(disk, programs.bochs_disk, programs.nano, words)
    with open(configuration, "w") as file:
        file.write(CONFIGURATION.format(disk=disk, directory=directory))
    with open(commands, "w") as file:
        file.write("continue\n")
    return ["bochs", "-q", "-f", configuration, "-rc", commands]
