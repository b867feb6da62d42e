/* terminal.h - the user's terminal: raw while the guest's console is on it, and back again however we end. */
#ifndef BT86_DEVICES_TERMINAL_H
#define BT86_DEVICES_TERMINAL_H

/* Makes fd's terminal raw if it is one and we are in its foreground; remembers what it was. Restored by
 * chardev_restore_terminal, at exit, and before a signal kills us. */
void terminal_raw(int fd);

#endif
