/* Where realmode-16.S and realmode.c meet. Linear addresses below 64 KiB, and offsets into the results. */
#define REAL_CODE    0x7000
#define REAL_RESULTS 0x6000
#define REAL_DATA    0x20000
#define REAL_STACK   0x30000
#define REAL_ABOVE   0x400000

#define REAL_RECOVER 0x800
#define REAL_CAUGHT  0x804
#define REAL_SP	     0x808
#define REAL_OLD_ESP 0x810
#define REAL_TICKS   0x814
#define REAL_GDTR    0x818
