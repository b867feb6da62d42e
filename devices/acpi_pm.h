/* acpi_pm.h - what the outside may do to the ACPI power-management block. Private to this folder. */
#ifndef BT86_DEVICES_ACPI_PM_H
#define BT86_DEVICES_ACPI_PM_H

#include "vmm/vmm.h"

/* Somebody presses the power button: PWRBTN_STS, and an SCI if the guest has enabled it. Lock held. */
void acpi_pm_power_button(struct machine *m);

#endif
