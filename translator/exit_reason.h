/* exit_reason.h - numbers shared by entry.S and C. */
#ifndef BT86_EXIT_REASON_H
#define BT86_EXIT_REASON_H

/* What bt_enter returns. c->eip is right in every case. */
#define BT_EXIT_DIRECT	1 /* an unchained exit: hot.exit_arg tells which (cache_exit_behind) */
#define BT_EXIT_MISS	2 /* no table slot for c->eip */
#define BT_EXIT_KICK	3 /* hot.kick was set */
#define BT_EXIT_FAULT	4 /* SIGSEGV, SIGBUS, SIGFPE, SIGILL or a kick in a rep instruction: hot.fault_* */
#define BT_EXIT_CALLOUT 5 /* a callout asked for the run loop */
#define BT_EXIT_MIDWAY	6 /* hot.kick was set, and c->eip is in the middle of a block */

/* What a callout returns. */
#define BT_GO_ON   0
#define BT_GO_JUMP 1
#define BT_GO_OUT  2

#endif
