/* log.c - the -d categories. */
#include "vmm/vmm.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

uint32_t log_mask;

static FILE *log_file; /* NULL: stderr */
static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;

static const struct {
	const char *name, *help;
} categories[LOG_CATS] = {
	[LOG_IN_ASM] = {"in_asm", "guest instructions of each block translated"},
	[LOG_OP] = {"op", "translation classes and decisions for each instruction"},
	[LOG_OUT_ASM] = {"out_asm", "host instructions emitted, next to the guest's"},
	[LOG_INT] = {"int", "interrupts and exceptions delivered"},
	[LOG_MMU] = {"mmu", "page faults, windows and address-space switches"},
	[LOG_TRACE] = {"trace", "memory traces set, hit and removed"},
	[LOG_CPU] = {"cpu", "control registers, mode switches, CPU state before blocks"},
	[LOG_UNIMP] = {"unimp", "guest use of what is not implemented"},
	[LOG_EXEC] = {"exec", "blocks entered from the dispatcher"},
	[LOG_DEV] = {"dev", "device accesses of note, unclaimed ports"},
};

const char *log_category_help(enum log_cat c, const char **name)
{
	if (name)
		*name = categories[c].name;
	return categories[c].help;
}

static int category_find(const char *name, size_t len)
{
	for (int i = 0; i < LOG_CATS; i++)
		if (strlen(categories[i].name) == len && !memcmp(categories[i].name, name, len))
			return i;
	return -1;
}

int log_set_categories(const char *list)
{
	uint32_t mask = 0;

	for (const char *p = list;; p++) {
		size_t len = strcspn(p, ",");
		int c = category_find(p, len);
		if (c < 0)
			return -1;
		mask |= 1u << c;
		p += len;
		if (!*p)
			break;
	}
	log_mask |= mask;
	return 0;
}

int log_set_file(const char *path)
{
	FILE *f = fopen(path, "we");

	if (!f)
		return -errno;
	setvbuf(f, NULL, _IOLBF, 0); /* a crash must not take the last lines with it */
	pthread_mutex_lock(&log_lock);
	if (log_file)
		fclose(log_file);
	log_file = f;
	pthread_mutex_unlock(&log_lock);
	return 0;
}

void log_printf(enum log_cat c, const char *fmt, ...)
{
	/* libc's formatting uses vector registers, and the guest's may be live in them. */
	_Alignas(16) uint8_t fpu[512];
	va_list ap;

	if (!log_on(c))
		return;
	__asm__ volatile("fxsave64 %0" : "=m"(fpu));
	pthread_mutex_lock(&log_lock);
	va_start(ap, fmt);
	vfprintf(log_file ? log_file : stderr, fmt, ap);
	va_end(ap);
	pthread_mutex_unlock(&log_lock);
	__asm__ volatile("fxrstor64 %0" : : "m"(fpu));
}
