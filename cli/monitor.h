/* monitor.h - the console's escape keys and the monitor behind Ctrl-a c. */
#ifndef BT86_CLI_MONITOR_H
#define BT86_CLI_MONITOR_H

#include "devices/devices.h"
#include "vmm/vmm.h"

/* Listens for Ctrl-a keys on the console. One a process. cd may be NULL: there is no console then. */
void monitor_attach(struct machine *m, struct chardev *cd);

#endif
