/* test_kvm.c - what is said to stand behind /dev/kvm, for every kind of host: a directory plays /sys. And,
 * where there is a /dev/kvm, that registers come back from it as they went in.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/kvm.h"

static char root[64];

static void make_root(void)
{
	snprintf(root, sizeof root, "/tmp/bt86-unit-kvm-XXXXXX");
	assert_non_null(mkdtemp(root));
}

/* A module with one parameter; name NULL: without. */
static void add_module(const char *module, const char *name, const char *value)
{
	char line[256];

	snprintf(line, sizeof line, "mkdir -p %s/sys/module/%s/parameters", root, module);
	assert_int_equal(system(line), 0);
	if (!name)
		return;
	snprintf(line, sizeof line, "%s/sys/module/%s/parameters/%s", root, module, name);
	FILE *f = fopen(line, "w");
	assert_non_null(f);
	fprintf(f, "%s\n", value);
	fclose(f);
}

static void remove_root(void)
{
	char line[128];

	snprintf(line, sizeof line, "rm -r %s", root);
	assert_int_equal(system(line), 0);
}

static void backing(void **state)
{
	static const struct {
		bool vmx, svm, in_vm;
		const char *module, *parameter, *value;
		const char *text;
	} rows[] = {
		{true, false, false, "kvm_intel", "ept", "Y",
		 "hardware assist: VT-x with nested paging (EPT)"},
		{true, false, false, "kvm_intel", "ept", "N",
		 "hardware assist: VT-x without nested paging (shadow page tables)"},
		{false, true, false, "kvm_amd", "npt", "1", "hardware assist: SVM with nested paging (NPT)"},
		{false, true, true, "kvm_amd", "npt", "0",
		 "hardware assist: SVM without nested paging (shadow page tables), itself virtualized"},
		/* The CPU has it, but something else serves the device; or the module is there and the CPU
		   hasn't. */
		{true, false, false, "kvm_pvm", NULL, NULL,
		 "software KVM (module kvm_pvm): no hardware assist, 32-bit code is emulated"},
		{false, false, true, "kvm_intel", "ept", "Y",
		 "software KVM (module kvm_intel): no hardware assist, 32-bit code is emulated"},
		{true, true, false, "other", NULL, NULL,
		 "software KVM: no hardware assist, 32-bit code is emulated"},
	};
	struct kvm_backing b;
	char text[200];

	(void)state;
	for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		make_root();
		add_module("kvm", NULL, NULL);
		add_module(rows[i].module, rows[i].parameter, rows[i].value);
		kvm_backing_classify(&b, root, rows[i].vmx, rows[i].svm, rows[i].in_vm);
		kvm_backing_describe(&b, text, sizeof text);
		assert_string_equal(text, rows[i].text);
		remove_root();
	}
	b.paging32 = false;
	kvm_backing_describe(&b, text, sizeof text);
	assert_non_null(strstr(text, "no 32-bit paging"));
}

/* ------------------------------------------------------------------ registers through the real thing */

static struct vcpu before(struct machine *m)
{
	struct vcpu c = m->vcpu;

	for (unsigned i = 0; i < 8; i++)
		c.gpr[i] = 0x11111111u * (i + 1);
	c.eip = 0x12345678;
	cpu_set_eflags(&c, FL_CF | FL_ZF | FL_DF | FL_IF | FL_IOPL);
	for (unsigned i = 0; i < 6; i++)
		c.seg[i] = (struct seg){.sel = (uint16_t)(0x10 + 8 * i),
					.base = 0x1000 * i,
					.limit = i & 1 ? 0xfffff : 0xffffffff,
					.attr = SEG_P | SEG_S | SEG_RW | SEG_ACCESSED | SEG_DB};
	for (unsigned i = 0; i < 6; i += 2)
		c.seg[i].attr |= SEG_G;
	c.seg[CS].attr |= SEG_CODE;
	c.seg[GS] = (struct seg){0};
	c.gdtr = (struct table_reg){0x2000, 0xff};
	c.cr0 = CR0_PE | CR0_ET | CR0_NE | CR0_WP;
	c.cr2 = 0xdeadb000;
	c.cr3 = 0x5000;
	c.cr4 = CR4_PSE | CR4_PGE | CR4_OSFXSR;
	c.dr[0] = 0x1000;
	c.dr[3] = 0x4000;
	for (unsigned i = 32; i < 288; i++) /* ST and XMM0-7 */
		c.fpu.fxsave[i] = i < 160 && i % 16 >= 10 ? 0 : (uint8_t)(i * 7);
	c.sysenter_esp = 0xc0001000;
	return c;
}

static void registers_come_back(void **state)
{
	const struct machine_config cfg = {.ram_bytes = 4 << 20, .accel = ACCEL_KVM, .cpu_model = "max"};
	char err[200];

	(void)state;
	if (!kvm_describe(err, sizeof err)) {
		print_message("skipped: %s\n", err);
		skip();
	}
	struct machine *m = machine_create(&cfg, err, sizeof err);
	assert_non_null(m);
	struct kvm_accel *k = kvm_create(m, err, sizeof err);
	if (!k)
		fail_msg("%s", err);
	struct vcpu *c = &m->vcpu, want = before(m);
	*c = want;
	k->synced = k->dirty = true;
	kvm_push(k);
	kvm_push_msrs(k);
	assert_false(k->dirty);
	cpu_reset(c);
	if (!k->backing.paging32)
		c->idtr = want.idtr; /* never KVM's */
	k->synced = false;
	kvm_fetch(k);
	assert_memory_equal(c->gpr, want.gpr, sizeof want.gpr);
	assert_int_equal(c->eip, want.eip);
	assert_int_equal(cpu_eflags(c), cpu_eflags(&want));
	for (unsigned i = 0; i < 6; i++) {
		assert_int_equal(c->seg[i].attr & SEG_P, want.seg[i].attr & SEG_P);
		if (want.seg[i].attr & SEG_P)
			assert_memory_equal(&c->seg[i], &want.seg[i], sizeof(struct seg));
	}
	assert_memory_equal(&c->tr, &want.tr, sizeof want.tr);
	assert_memory_equal(&c->gdtr, &want.gdtr, sizeof want.gdtr);
	assert_memory_equal(&c->idtr, &want.idtr, sizeof want.idtr);
	assert_int_equal(c->cr0, want.cr0);
	assert_int_equal(c->cr2, want.cr2);
	assert_int_equal(c->cr3, want.cr3);
	assert_int_equal(c->cr4, want.cr4);
	assert_memory_equal(c->dr, want.dr, 4 * sizeof want.dr[0]);
	assert_memory_equal(c->fpu.fxsave, want.fpu.fxsave, 288);
	assert_int_equal(machine_exit_status(m), 0);
	kvm_destroy(k);
	machine_destroy(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(backing),
		cmocka_unit_test(registers_come_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
