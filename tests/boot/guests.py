"""Small Multiboot guests, assembled by hand: what a broken kernel does to the machine."""
import struct

BASE = 0x100000


def multiboot(code):
    """A flat image with its load addresses in the Multiboot header (flag 16), entered right behind it."""
    flags = 1 << 16
    entry = BASE + 32
    header = struct.pack("<8I", 0x1BADB002, flags, -(0x1BADB002 + flags) & 0xFFFFFFFF, BASE, BASE, 0, 0, entry)
    return header + code


def _mov_eax(value):
    return b"\xb8" + struct.pack("<I", value)


EMPTY_IDT = b"\x0f\x01\x1d" + struct.pack("<I", BASE + 32 + 7 + 64)  # lidt [a place that holds zeros]
PAGING_ON = b"\x0f\x20\xc0\x0d\x00\x00\x00\x80\x0f\x22\xc0"  # cr0 |= PG
PAD = bytes(256)

# name: (code, whether it must end in a triple fault; else it runs until it is told to end)
GUESTS = {
    "triple fault": (EMPTY_IDT + b"\xcc" + PAD, True),
    "divide error without handlers": (EMPTY_IDT + b"\x31\xd2\x31\xc9\xf7\xf1" + PAD, True),
    "garbage instructions": (EMPTY_IDT + bytes.fromhex("0fff0f0bf00f0bc4c5") * 20 + PAD, True),
    "jump to nowhere": (EMPTY_IDT + _mov_eax(0xDEADBEE0) + b"\xff\xe0" + PAD, True),
    "garbage CR3": (EMPTY_IDT + _mov_eax(0xABCDE000) + b"\x0f\x22\xd8" + PAGING_ON + b"\xf4" + PAD, True),
    "CR3 at the machine's own pages": (EMPTY_IDT + _mov_eax(BASE) + b"\x0f\x22\xd8" + PAGING_ON + b"\xf4" + PAD, True),
    "garbage GDT": (EMPTY_IDT + b"\x0f\x01\x15" + struct.pack("<I", BASE) + _mov_eax(0x18) + b"\x8e\xd8" + b"\x8e\xd0\xcc" + PAD, True),
    "garbage IDT": (b"\x0f\x01\x1d" + struct.pack("<I", BASE) + b"\xcc" + PAD, True),
    "garbage CR4": (EMPTY_IDT + _mov_eax(0xFFFFFFFF) + b"\x0f\x22\xe0" + b"\xcc" + PAD, True),
    "stack at nowhere": (EMPTY_IDT + b"\xbc\x00\x00\x00\xf0" + b"\x50\x50\xc3" + PAD, True),
    "loop with interrupts off": (b"\xfa\xeb\xfe" + PAD, False),
    "halt with interrupts off": (b"\xfa\xf4\xeb\xfc" + PAD, False),
    "empty memory": (b"\x31\xc0\xeb\xfc" + PAD, False),
    "stores over all of memory": (b"\xfc\xbf" + struct.pack("<I", 0x200000) + b"\xb9\x00\x00\x00\x10\xf3\xab\xeb\xf2" + PAD, False),
    "ports of nobody": (b"\x66\xba\x00\x00\xec\xee\x66\x42\xeb\xfa" + PAD, None),
}

# mov dx, 0xf4; mov al, 0x21; out dx, al
DEBUG_EXIT = multiboot(b"\x66\xba\xf4\x00\xb0\x21\xee\xeb\xfe" + PAD)
