/* symbols.c - guest symbols from a System.map or an i386 ELF file.
 *
 * One array sorted by address. A symbol covers what its size says, or everything up to the next one where the
 * file gives no size (System.map, assembly). Files are untrusted: every offset is checked, and what makes no
 * sense is left out.
 */
#include "vmm/vmm.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define TEXT_MAX (64u << 20) /* System.map, or one string table */
#define SYMS_MAX (4u << 20)

struct symbol {
	uint32_t addr, size; /* size 0: up to the next */
	uint32_t name;	     /* offset in strings */
};

static struct symbol *symbols;
static size_t nsymbols;
static char *strings;

void symbols_free(void)
{
	free(symbols);
	free(strings);
	symbols = NULL;
	strings = NULL;
	nsymbols = 0;
}

/* Like pread, but all of it or nothing; the caller frees. One byte more than len, zero, stands behind. */
static void *read_at(int fd, uint64_t offset, uint64_t len, uint64_t max)
{
	struct stat st;
	char *p;

	if (len == 0 || len > max || fstat(fd, &st) || offset + len > (uint64_t)st.st_size)
		return NULL;
	p = malloc(len + 1);
	if (!p)
		return NULL;
	for (uint64_t done = 0; done < len;) {
		ssize_t n = pread(fd, p + done, len - done, (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			free(p);
			return NULL;
		}
		done += (uint64_t)n;
	}
	p[len] = 0;
	return p;
}

/* ------------------------------------------------------------------ ELF */

static Elf32_Shdr *read_sections(int fd, const Elf32_Ehdr *eh)
{
	if (eh->e_shentsize != sizeof(Elf32_Shdr))
		return NULL;
	return read_at(fd, eh->e_shoff, (uint64_t)eh->e_shnum * sizeof(Elf32_Shdr),
		       65535 * sizeof(Elf32_Shdr));
}

static bool wanted(const Elf32_Sym *s, uint32_t strings_len)
{
	unsigned type = ELF32_ST_TYPE(s->st_info);

	return s->st_shndx != SHN_UNDEF && s->st_shndx != SHN_ABS && s->st_name != 0 &&
	       s->st_name < strings_len && (type == STT_NOTYPE || type == STT_OBJECT || type == STT_FUNC);
}

static void take_symtab(int fd, const Elf32_Shdr *sym, const Elf32_Shdr *str)
{
	Elf32_Sym *table = read_at(fd, sym->sh_offset, sym->sh_size, (uint64_t)SYMS_MAX * sizeof *table);
	size_t n = sym->sh_size / sizeof *table;

	strings = read_at(fd, str->sh_offset, str->sh_size, TEXT_MAX);
	symbols = calloc(n ? n : 1, sizeof *symbols);
	if (table && strings && symbols)
		for (size_t i = 0; i < n; i++)
			if (wanted(&table[i], str->sh_size))
				symbols[nsymbols++] = (struct symbol){table[i].st_value, table[i].st_size,
								      table[i].st_name};
	free(table);
}

static void load_elf(int fd, const Elf32_Ehdr *eh)
{
	Elf32_Shdr *sh = read_sections(fd, eh);

	for (unsigned i = 0; sh && i < eh->e_shnum; i++)
		if (sh[i].sh_type == SHT_SYMTAB && sh[i].sh_link < eh->e_shnum) {
			take_symtab(fd, &sh[i], &sh[sh[i].sh_link]);
			break;
		}
	free(sh);
}

/* ------------------------------------------------------------------ System.map: "c1000000 T name" */

/* One line, cut in place; false for one that is no symbol of 32-bit code or data. */
static bool parse_line(char *line, struct symbol *s)
{
	char *end, *name;
	unsigned long long addr;

	errno = 0;
	addr = strtoull(line, &end, 16);
	if (end == line || errno || addr > UINT32_MAX || end[0] != ' ' || !end[1] || end[2] != ' ')
		return false;
	if (strchr("aAU", end[1]))
		return false;
	name = end + 3;
	name[strcspn(name, " \t\r")] = 0;
	if (!*name)
		return false;
	*s = (struct symbol){.addr = (uint32_t)addr, .name = (uint32_t)(name - strings)};
	return true;
}

static void load_map(void)
{
	size_t lines = 1;

	for (const char *p = strings; (p = strchr(p, '\n')); p++)
		lines++;
	symbols = calloc(lines, sizeof *symbols);
	if (!symbols)
		return;
	for (char *p = strings, *next; p && *p; p = next) {
		next = strchr(p, '\n');
		if (next)
			*next++ = 0;
		if (parse_line(p, &symbols[nsymbols]))
			nsymbols++;
	}
}

/* ------------------------------------------------------------------ */

static int by_address(const void *a, const void *b)
{
	const struct symbol *x = a, *y = b;

	return x->addr < y->addr ? -1 : x->addr > y->addr;
}

static void load_fd(int fd, uint64_t size)
{
	Elf32_Ehdr *eh = size >= sizeof *eh ? read_at(fd, 0, sizeof *eh, sizeof *eh) : NULL;

	if (eh && !memcmp(eh->e_ident, ELFMAG, SELFMAG)) {
		if (eh->e_ident[EI_CLASS] == ELFCLASS32 && eh->e_machine == EM_386)
			load_elf(fd, eh);
	} else {
		strings = read_at(fd, 0, size, TEXT_MAX);
		if (strings)
			load_map();
	}
	free(eh);
}

int symbols_load(const char *path, char *err, size_t errlen)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;

	symbols_free();
	if (fd < 0 || fstat(fd, &st)) {
		snprintf(err, errlen, "cannot open '%s': %s", path, strerror(errno));
		if (fd >= 0)
			close(fd);
		return -1;
	}
	if (S_ISREG(st.st_mode))
		load_fd(fd, (uint64_t)st.st_size);
	close(fd);
	if (nsymbols == 0) {
		snprintf(
			err, errlen,
			"'%s' has no symbols: a System.map or an i386 ELF file with a symbol table is needed",
			path);
		symbols_free();
		return -1;
	}
	qsort(symbols, nsymbols, sizeof *symbols, by_address);
	return 0;
}

const char *symbols_find(uint32_t addr, uint32_t *offset)
{
	size_t lo = 0, hi = nsymbols;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (symbols[mid].addr <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo == 0)
		return NULL;
	const struct symbol *s = &symbols[lo - 1];
	if (s->size ? addr - s->addr >= s->size : lo == nsymbols && addr != s->addr)
		return NULL;
	*offset = addr - s->addr;
	return strings + s->name;
}
