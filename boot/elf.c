/* elf.c - 32-bit i386 ELF executables: the segments, checked field by field. */
#include "boot/plan.h"

#include <elf.h>
#include <string.h>

bool elf_probe(const struct image *f)
{
	return f->size >= EI_NIDENT && memcmp(f->data, ELFMAG, SELFMAG) == 0;
}

bool elf_is_64(const struct image *f)
{
	return f->data[EI_CLASS] == ELFCLASS64 || (f->size >= 20 && get16(f->data + 18) == EM_X86_64);
}

static bool inside(const struct image *f, uint64_t offset, uint64_t len)
{
	return offset <= f->size && len <= f->size - offset;
}

static int truncated(struct boot *b, const struct image *f, const char *what, uint64_t end)
{
	return boot_fail(b, "'%s' is truncated: its %s ends at byte %llu of a file of %llu", f->name, what,
			 (unsigned long long)end, (unsigned long long)f->size);
}

/* The header's own claims. Section headers stand last in most files: they tell that a file was cut short. */
static int check_header(struct boot *b, const struct image *f, Elf32_Ehdr *eh)
{
	if (f->size < sizeof *eh)
		return truncated(b, f, "ELF header", sizeof *eh);
	memcpy(eh, f->data, sizeof *eh);
	if (elf_is_64(f))
		return boot_fail(b, "'%s' is a 64-bit kernel; bt86 runs 32-bit kernels", f->name);
	if (eh->e_ident[EI_CLASS] != ELFCLASS32 || eh->e_ident[EI_DATA] != ELFDATA2LSB ||
	    eh->e_machine != EM_386)
		return boot_fail(b,
				 "'%s' is an ELF file for another kind of processor (machine %u), not i386",
				 f->name, eh->e_machine);
	if (eh->e_type != ET_EXEC)
		return boot_fail(b, "'%s' is an ELF file but not an executable (type %u)", f->name,
				 eh->e_type);
	if (eh->e_phnum == 0 || eh->e_phentsize < sizeof(Elf32_Phdr))
		return boot_fail(b, "'%s' has no ELF program headers: nothing in it can be loaded", f->name);
	if (!inside(f, eh->e_phoff, (uint64_t)eh->e_phnum * eh->e_phentsize))
		return truncated(b, f, "program header table",
				 eh->e_phoff + (uint64_t)eh->e_phnum * eh->e_phentsize);
	if (eh->e_shoff && !inside(f, eh->e_shoff, (uint64_t)eh->e_shnum * eh->e_shentsize))
		return truncated(b, f, "section header table",
				 eh->e_shoff + (uint64_t)eh->e_shnum * eh->e_shentsize);
	return 0;
}

int elf_load(struct boot *b, const struct image *f, uint32_t *entry, uint64_t *end)
{
	Elf32_Ehdr eh;
	Elf32_Phdr ph;
	bool found = false, mapped = false;

	if (check_header(b, f, &eh))
		return -1;
	*end = 0;
	*entry = eh.e_entry;
	for (unsigned i = 0; i < eh.e_phnum; i++) {
		memcpy(&ph, f->data + eh.e_phoff + (uint64_t)i * eh.e_phentsize, sizeof ph);
		if (ph.p_type == PT_INTERP)
			return boot_fail(b, "'%s' is a program for an operating system, not a kernel",
					 f->name);
		if (ph.p_type != PT_LOAD || ph.p_memsz == 0)
			continue;
		if (ph.p_filesz > ph.p_memsz)
			return boot_fail(
				b, "'%s' is damaged: segment %u has more bytes in the file than in memory",
				f->name, i);
		if (!inside(f, ph.p_offset, ph.p_filesz))
			return truncated(b, f, "segment", (uint64_t)ph.p_offset + ph.p_filesz);
		if (plan_segment(b, ph.p_paddr, f->data + ph.p_offset, ph.p_filesz, ph.p_memsz))
			return -1;
		if (ph.p_paddr + (uint64_t)ph.p_memsz > *end)
			*end = ph.p_paddr + (uint64_t)ph.p_memsz;
		found = true;
		/* An entry point inside a segment's virtual range means the same byte of its physical range;
		 * otherwise, as in a Linux vmlinux, it is physical already. */
		if (!mapped && eh.e_entry >= ph.p_vaddr && eh.e_entry - ph.p_vaddr < ph.p_memsz) {
			*entry = eh.e_entry - ph.p_vaddr + ph.p_paddr;
			mapped = true;
		}
	}
	if (!found)
		return boot_fail(b, "'%s' has no loadable ELF segment", f->name);
	return 0;
}
