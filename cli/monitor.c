/* monitor.c - the console's escape keys and the monitor behind Ctrl-a c.
 *
 * While the monitor is open the console's input comes here instead of to the serial port; the guest keeps
 * running, and what it prints still appears, unless "stop" was given. A command that looks at the CPU or at
 * memory stops the vCPU for as long as it looks. Everything here runs on the event-loop thread with the
 * machine's lock held.
 */
#include "cli/monitor.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli/options.h"
#include "cli/stats.h"
#include "translator/decode.h"

#define LINE_MAX_LEN 256u
#define PROMPT	     "(bt86) "
#define EOL	     "\r\n" /* the terminal is raw */

static struct monitor {
	struct machine *m;
	struct chardev *cd;
	bool open;
	bool stopped; /* by "stop" */
	char line[LINE_MAX_LEN];
	unsigned len;
} mon;

static void say(const char *text)
{
	chardev_write(mon.cd, (const uint8_t *)text, strlen(text));
}

/* ------------------------------------------------------------------ stopping the vCPU to look at it */

static bool pause_guest(void)
{
	machine_stop(mon.m);
	return machine_wait_stopped(mon.m);
}

static void resume_guest(void)
{
	if (!mon.stopped)
		machine_cont(mon.m);
}

/* ------------------------------------------------------------------ info */

static void print_segment(FILE *out, const char *name, const struct seg *s)
{
	fprintf(out, "%-3s = %04x base %08x limit %08x attr %04x%s" EOL, name, s->sel, s->base, s->limit,
		s->attr, s->attr & SEG_P ? "" : " (null)");
}

static void info_registers(FILE *out)
{
	static const char *const seg_names[] = {"ES", "CS", "SS", "DS", "FS", "GS"};
	const struct vcpu *c = machine_vcpu(mon.m);
	const uint32_t *r = c->gpr;
	uint32_t fl = cpu_eflags(c), offset;
	const char *symbol = symbols_find(c->seg[CS].base + c->eip, &offset);

	fprintf(out, "EAX=%08x EBX=%08x ECX=%08x EDX=%08x" EOL, r[EAX], r[EBX], r[ECX], r[EDX]);
	fprintf(out, "ESI=%08x EDI=%08x EBP=%08x ESP=%08x" EOL, r[ESI], r[EDI], r[EBP], r[ESP]);
	fprintf(out, "EIP=%08x EFL=%08x [%c%c%c%c%c%c%c] CPL=%u%s", c->eip, fl, fl & FL_DF ? 'D' : '-',
		fl & FL_OF ? 'O' : '-', fl & FL_SF ? 'S' : '-', fl & FL_ZF ? 'Z' : '-',
		fl & FL_AF ? 'A' : '-', fl & FL_PF ? 'P' : '-', fl & FL_CF ? 'C' : '-', c->cpl,
		c->halted ? " halted" : "");
	if (symbol)
		fprintf(out, " <%s+0x%x>", symbol, offset);
	fputs(EOL, out);
	for (unsigned i = 0; i < 6; i++)
		print_segment(out, seg_names[i], &c->seg[i]);
	print_segment(out, "LDT", &c->ldtr);
	print_segment(out, "TR", &c->tr);
	fprintf(out, "GDT = base %08x limit %04x  IDT = base %08x limit %04x" EOL, c->gdtr.base,
		c->gdtr.limit, c->idtr.base, c->idtr.limit);
	fprintf(out, "CR0=%08x CR2=%08x CR3=%08x CR4=%08x" EOL, c->cr0, c->cr2, c->cr3, c->cr4);
	fprintf(out, "DR0=%08x DR1=%08x DR2=%08x DR3=%08x DR6=%08x DR7=%08x" EOL, c->dr[0], c->dr[1],
		c->dr[2], c->dr[3], c->dr[6], c->dr[7]);
}

/* The dumps end their lines in \n alone. */
static void copy_lines(FILE *out, void (*dump)(const struct mem *, FILE *))
{
	char *text = NULL;
	size_t size = 0;
	FILE *f = open_memstream(&text, &size);

	if (!f)
		return;
	dump(machine_mem(mon.m), f);
	fclose(f);
	for (size_t i = 0; i < size; i++) {
		if (text[i] == '\n')
			fputc('\r', out);
		fputc(text[i], out);
	}
	free(text);
}

/* "info cache" shows every group of counters but memory's, which go with windows and traces. */
static void info_counters(FILE *out, bool cache, const char *group)
{
	struct stat_row all[STATS_ROWS], some[STATS_ROWS];
	unsigned n = stats_gather(mon.m, all, STATS_ROWS), k = 0;

	for (unsigned i = 0; i < n; i++) {
		bool mem = !strcmp(all[i].group, "memory") || !strcmp(all[i].group, "windows") ||
			   !strcmp(all[i].group, "traces");

		if (cache ? !mem : !strcmp(all[i].group, group))
			some[k++] = all[i];
	}
	stats_print_text(out, some, k, EOL);
}

static void info_cache(FILE *out)
{
	if (machine_cfg(mon.m)->accel == ACCEL_BT)
		info_counters(out, true, NULL);
	else
		fputs("the translator is not in use" EOL, out);
}

static void info_windows(FILE *out)
{
	info_counters(out, false, "windows");
	copy_lines(out, mem_dump_windows);
}

static void info_traces(FILE *out)
{
	info_counters(out, false, "traces");
	copy_lines(out, mem_dump_traces);
}

static void info_kvm(FILE *out)
{
	char text[200];

	if (machine_cfg(mon.m)->accel != ACCEL_KVM) {
		fputs("kvm is not in use" EOL, out);
		return;
	}
	machine_describe_accel(mon.m, text, sizeof text);
	fprintf(out, "%s" EOL, text);
	info_counters(out, false, "kvm");
}

static void cmd_info(FILE *out, char *args)
{
	static const struct {
		const char *name;
		void (*fn)(FILE *);
	} what[] = {{"registers", info_registers},
		    {"cache", info_cache},
		    {"windows", info_windows},
		    {"traces", info_traces},
		    {"kvm", info_kvm}};

	for (unsigned i = 0; i < sizeof what / sizeof what[0]; i++)
		if (!strcmp(args, what[i].name)) {
			if (pause_guest())
				what[i].fn(out);
			resume_guest();
			return;
		}
	fputs("info registers|cache|windows|traces|kvm" EOL, out);
}

/* ------------------------------------------------------------------ x and xp */

struct examine {
	unsigned count, size; /* size of an item in bytes */
	char format;	      /* x d u o c s i */
	bool physical;
	uint32_t addr;
};

/* Reads linear (or physical) memory without side effects, as far as it goes. Returns the bytes read. */
static unsigned peek(const struct examine *x, uint32_t addr, uint8_t *buf, unsigned len)
{
	struct vcpu *c = machine_vcpu(mon.m);
	unsigned done = 0;

	while (done < len) {
		unsigned n = PAGE_SIZE - (addr & (PAGE_SIZE - 1));
		struct walk w = {.gpa = addr};
		const uint8_t *p;

		if (n > len - done)
			n = len - done;
		if (!x->physical && mem_walk(c, addr, ACC_READ | ACC_PEEK, &w))
			break;
		p = mem_ptr(machine_mem(mon.m), w.gpa, n); /* RAM only: reading a device may change it */
		if (!p)
			break;
		memcpy(buf + done, p, n);
		done += n;
		addr += n;
	}
	return done;
}

/* "/8xw": a count, a format letter and a size letter in any order. False if there is another letter. */
static bool parse_format(const char *s, struct examine *x)
{
	if (*s >= '0' && *s <= '9') {
		unsigned long n = strtoul(s, (char **)&s, 10);

		x->count = n < 4096 ? (unsigned)n : 4096;
	}
	for (; *s && *s != ' '; s++) {
		if (strchr("xduocsi", *s))
			x->format = *s;
		else if (strchr("bhwg", *s))
			x->size = *s == 'b' ? 1 : *s == 'h' ? 2 : *s == 'w' ? 4 : 8;
		else
			return false;
	}
	if (x->format == 'c' || x->format == 's')
		x->size = 1;
	return true;
}

static bool parse_term(const char **s, uint32_t *v)
{
	static const char *const names[] = {"eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"};
	const struct vcpu *c = machine_vcpu(mon.m);
	char *end;

	if (**s != '$') {
		*v = (uint32_t)strtoull(*s, &end, 0);
		if (end == *s)
			return false;
		*s = end;
		return true;
	}
	if (!strncmp(*s + 1, "eip", 3) || !strncmp(*s + 1, "pc", 2)) {
		*v = c->seg[CS].base + c->eip;
		*s += (*s)[1] == 'e' ? 4 : 3;
		return true;
	}
	for (unsigned i = 0; i < 8; i++)
		if (!strncmp(*s + 1, names[i], 3)) {
			*v = c->gpr[i];
			*s += 4;
			return true;
		}
	return false;
}

/* A number or $register, and more of them with + and -. */
static bool parse_address(const char *s, uint32_t *v)
{
	uint32_t t;

	if (!parse_term(&s, v))
		return false;
	while (*s == '+' || *s == '-') {
		bool minus = *s++ == '-';

		if (!parse_term(&s, &t))
			return false;
		*v = minus ? *v - t : *v + t;
	}
	return *s == 0;
}

static void print_location(FILE *out, uint32_t addr)
{
	uint32_t offset;
	const char *symbol = symbols_find(addr, &offset);

	fprintf(out, "%08x", addr);
	if (symbol)
		fprintf(out, " <%s+0x%x>", symbol, offset);
	fputs(": ", out);
}

static void print_item(FILE *out, const struct examine *x, const uint8_t *p)
{
	uint64_t v = 0;
	int64_t s;

	memcpy(&v, p, x->size);
	s = (int64_t)(v << (64 - 8 * x->size)) >> (64 - 8 * x->size);
	switch (x->format) {
	case 'd':
		fprintf(out, " %" PRId64, s);
		break;
	case 'u':
		fprintf(out, " %" PRIu64, v);
		break;
	case 'o':
		fprintf(out, " 0%" PRIo64, v);
		break;
	case 'c':
		fprintf(out, " '%c'", v >= 32 && v < 127 ? (int)v : '.');
		break;
	default:
		fprintf(out, " 0x%0*" PRIx64, (int)(2 * x->size), v);
	}
}

static void examine_data(FILE *out, const struct examine *x)
{
	unsigned per_line = x->size == 8 ? 2 : x->size == 1 ? 8 : 4;
	uint32_t addr = x->addr;
	uint8_t item[8];

	for (unsigned i = 0; i < x->count; i++, addr += x->size) {
		if (i % per_line == 0) {
			fputs(i ? EOL : "", out);
			print_location(out, addr);
		}
		if (peek(x, addr, item, x->size) < x->size) {
			fprintf(out, " (no memory at 0x%08x)", addr);
			break;
		}
		print_item(out, x, item);
	}
	fputs(EOL, out);
}

static void examine_string(FILE *out, const struct examine *x)
{
	uint32_t addr = x->addr;

	for (unsigned i = 0; i < x->count; i++) {
		uint8_t ch = 0;

		print_location(out, addr);
		fputc('"', out);
		for (unsigned n = 0; n < 200 && peek(x, addr, &ch, 1) && ch; n++, addr++)
			fputc(ch >= 32 && ch < 127 ? ch : '.', out);
		fputs("\"" EOL, out);
		addr++;
	}
}

static void examine_code(FILE *out, const struct examine *x)
{
	const unsigned bits = cpu_code32(machine_vcpu(mon.m)) ? 32 : 16;
	uint32_t addr = x->addr;

	for (unsigned i = 0; i < x->count; i++) {
		uint8_t bytes[16];
		char text[96];
		unsigned n = peek(x, addr, bytes, 15);

		print_location(out, addr);
		if (n == 0) {
			fputs("(no memory here)" EOL, out);
			break;
		}
		n = decode_text(bits, addr, bytes, n, text, sizeof text);
		if (n)
			fprintf(out, " %s" EOL, text);
		else
			fprintf(out, " (bad) 0x%02x" EOL, bytes[0]);
		addr += n ? n : 1;
	}
}

static void examine(FILE *out, char *args, bool physical)
{
	struct examine x = {.count = 1, .size = 4, .format = 'x', .physical = physical};
	bool ok = true;

	if (*args == '/') {
		ok = parse_format(args + 1, &x);
		args += strcspn(args, " ");
		args += strspn(args, " ");
	}
	if (!pause_guest())
		return;
	if (!ok || !parse_address(args, &x.addr))
		fputs("x /FMT ADDRESS: FMT is a count, one of x d u o c s i and one of b h w g; ADDRESS is a "
		      "number, "
		      "$eip or another register, and sums of them" EOL,
		      out);
	else if (x.format == 'i')
		examine_code(out, &x);
	else if (x.format == 's')
		examine_string(out, &x);
	else
		examine_data(out, &x);
	resume_guest();
}

static void cmd_x(FILE *out, char *args)
{
	examine(out, args, false);
}

static void cmd_xp(FILE *out, char *args)
{
	examine(out, args, true);
}

/* ------------------------------------------------------------------ the other commands */

static void cmd_stop(FILE *out, char *args)
{
	(void)args;
	mon.stopped = true;
	if (pause_guest())
		fprintf(out, "stopped at 0x%08x" EOL, machine_vcpu(mon.m)->eip);
}

static void cmd_cont(FILE *out, char *args)
{
	(void)out, (void)args;
	mon.stopped = false;
	machine_cont(mon.m);
}

static void cmd_quit(FILE *out, char *args)
{
	(void)out, (void)args;
	machine_poweroff(mon.m, EXIT_POWEROFF);
}

static void cmd_help(FILE *out, char *args);

static const struct command {
	const char *name;
	void (*fn)(FILE *out, char *args);
	const char *usage, *help;
} commands[] = {
	{"info", cmd_info, "info registers|cache|windows|traces|kvm",
	 "show the CPU, or counters and what they count"},
	{"x", cmd_x, "x /FMT ADDRESS", "show memory at a linear address: x/8xw $esp, x/5i $eip"},
	{"xp", cmd_xp, "xp /FMT ADDRESS", "the same at a physical address"},
	{"stop", cmd_stop, "stop", "stop the guest"},
	{"cont", cmd_cont, "cont", "let it run again"},
	{"quit", cmd_quit, "quit", "end bt86"},
	{"help", cmd_help, "help", "this list"},
};

static void cmd_help(FILE *out, char *args)
{
	(void)args;
	for (unsigned i = 0; i < sizeof commands / sizeof commands[0]; i++)
		fprintf(out, "  %-36s %s" EOL, commands[i].usage, commands[i].help);
	fputs("Ctrl-a c goes back to the guest." EOL, out);
}

/* "x/8xw ADDR" and "x /8xw ADDR" are the same. */
static void run_command(FILE *out, char *line)
{
	size_t len = strcspn(line, " /");
	char *args = line + len;

	args += strspn(args, " ");
	for (unsigned i = 0; i < sizeof commands / sizeof commands[0]; i++)
		if (strlen(commands[i].name) == len && !memcmp(commands[i].name, line, len)) {
			commands[i].fn(out, args);
			return;
		}
	fputs("unknown command; try help" EOL, out);
}

static void execute(char *line)
{
	char *text = NULL;
	size_t size = 0, len = strlen(line);
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return;
	while (len && line[len - 1] == ' ')
		line[--len] = 0;
	line += strspn(line, " ");
	if (*line)
		run_command(out, line);
	fclose(out);
	chardev_write(mon.cd, (const uint8_t *)text, size);
	free(text);
}

/* ------------------------------------------------------------------ the line editor */

static void edit(uint8_t ch)
{
	switch (ch) {
	case '\r':
	case '\n':
		say(EOL);
		mon.line[mon.len] = 0;
		mon.len = 0;
		execute(mon.line);
		if (mon.open)
			say(PROMPT);
		break;
	case 0x08:
	case 0x7f:
		if (mon.len) {
			mon.len--;
			say("\b \b");
		}
		break;
	case 0x15: /* Ctrl-u */
		for (; mon.len; mon.len--)
			say("\b \b");
		break;
	default:
		if (ch >= 32 && ch < 127 && mon.len < LINE_MAX_LEN - 1) {
			mon.line[mon.len++] = (char)ch;
			chardev_write(mon.cd, &ch, 1);
		}
	}
}

static size_t on_input(void *opaque, const uint8_t *buf, size_t n)
{
	(void)opaque;
	for (size_t i = 0; i < n; i++)
		edit(buf[i]);
	return n;
}

static void toggle(void)
{
	mon.open = !mon.open;
	mon.len = 0;
	if (mon.open) {
		chardev_divert(mon.cd, on_input, NULL);
		say(EOL "bt86 monitor: 'help' lists commands, Ctrl-a c goes back to the guest" EOL PROMPT);
	} else {
		chardev_divert(mon.cd, NULL, NULL);
		say(mon.stopped ? EOL "back on the console; the guest is stopped" EOL : EOL);
	}
}

static void list_keys(void)
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return;
	fputs(EOL, out);
	options_print_keys(out, EOL);
	fclose(out);
	chardev_write(mon.cd, (const uint8_t *)text, size);
	free(text);
}

static void on_escape(void *opaque, int key)
{
	(void)opaque;
	switch (key) {
	case 'x':
		machine_poweroff(mon.m, EXIT_POWEROFF);
		break;
	case 'h':
	case '?':
		list_keys();
		break;
	case 'c':
		toggle();
		break;
	default: /* break and Ctrl-a itself are the character device's */
		break;
	}
}

void monitor_attach(struct machine *m, struct chardev *cd)
{
	mon = (struct monitor){.m = m, .cd = cd};
	if (cd)
		chardev_on_escape(cd, on_escape, NULL);
}
