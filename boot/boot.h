/* boot.h - getting a guest into memory: Linux boot protocol, Multiboot 1, ACPI and MP tables, the demo.
 *
 * boot_load reads and checks everything before the guest runs; what it keeps is enough to load again at a
 * machine reset. Untrusted input: images may be truncated, empty or random. Every refusal is one line that names
 * the file, what is wrong and what would do.
 */
#ifndef BT86_BOOT_H
#define BT86_BOOT_H

#include "vmm/vmm.h"

struct boot_config {
	const char *kernel; /* path; NULL with demo */
	const char *initrd; /* path; for Multiboot "mod1 args,mod2" */
	const char *append;
	bool demo;
};
struct boot;
/* Loads into RAM, sets the vCPU's entry state and registers a reset handler that does it again. On failure NULL
 * with one line in err (the caller exits with EXIT_IMAGE). */
struct boot *boot_load(struct machine *m, const struct boot_config *cfg, char *err, size_t errlen);
void boot_free(struct boot *b);
/* The kernel's format, for messages: "Linux bzImage 2.15", "Multiboot ELF", ... */
const char *boot_describe(const struct boot *b);

/* Writes RSDP, RSDT, FADT, FACS, MADT and DSDT; returns the RSDP's gpa (in 0xe0000-0xfffff). */
uint64_t acpi_install(struct machine *m);
/* Writes the tables of the MultiProcessor Specification, at 0xf0000, if the CPU has a local APIC. */
void mptable_install(struct machine *m);

#endif
