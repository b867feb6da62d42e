/* A guest that writes anything anywhere at any time: the timers and interrupt controllers must neither crash
 * (the sanitizer builds see to it that this means something) nor keep the host busy. The sequence is the same
 * in every run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "devices/device.h"
#include "devices/devices.h"
#include "tests/unit/fake_machine.h"

#define STEPS 300000

static uint64_t seed = 0x9e3779b97f4a7c15u;

static uint32_t chance(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)(seed >> 16);
}

/* Small and extreme values more often than others. */
static uint32_t value(void)
{
	switch (chance() % 4) {
	case 0:
		return chance() % 4;
	case 1:
		return ~(chance() % 4);
	default:
		return chance();
	}
}

static uint64_t pause_ns(void)
{
	switch (chance() % 16) {
	case 0:
		return chance() % 3000000000u;
	case 1:
	case 2:
		return chance() % 3000000;
	default:
		return chance() % 2000;
	}
}

static void step(struct machine *m)
{
	static const uint16_t ports[] = {0x20,
					 0x21,
					 0xa0,
					 0xa1,
					 0x4d0,
					 0x4d1,
					 0x40,
					 0x41,
					 0x42,
					 0x43,
					 0x43,
					 0x61,
					 0x70,
					 0x71,
					 0x71,
					 ACPI_PM1A_EVT,
					 ACPI_PM1A_EVT + 1,
					 ACPI_PM1A_EVT + 2,
					 ACPI_PM1A_CNT,
					 ACPI_PM_TMR};
	uint16_t port = ports[chance() % (sizeof ports / sizeof *ports)];
	unsigned size = 1u << chance() % 3;
	uint64_t apic = LAPIC_GPA + (chance() % 2 ? chance() % 0x1000 : (0x20 + chance() % 0x20) * 16);
	uint64_t io = IOAPIC_GPA + (chance() % 4 ? chance() % 2 * 16 : chance() % 0x1000);

	switch (chance() % 10) {
	case 0:
		fake_apic_base_write(m, LAPIC_GPA | (chance() % 8 ? 0x900 : 0x100));
		break;
	case 1:
		pio_read(m, port, size);
		break;
	case 2:
	case 3:
		pio_write(m, port, value(), chance() % 4 ? 1 : size);
		break;
	case 4:
		fake_mmio_read(m, apic & ~(uint64_t)(size - 1), size);
		fake_mmio_read(m, io & ~(uint64_t)(size - 1), size);
		break;
	case 5:
	case 6:
		fake_mmio_write(m, apic & ~(uint64_t)3, value(), 4);
		break;
	case 7:
		fake_mmio_write(m, io & ~(uint64_t)3, value(), 4);
		break;
	case 8:
		machine_lock(m);
		irq_set(m, chance() % IRQ_LINES, chance() & 1);
		machine_unlock(m);
		break;
	default:
		assert_in_range(fake_intr_ack(m) + 1, 0, 256);
		if (chance() % 1000 == 0)
			fake_machine_reset(m);
		break;
	}
}

static void anything(void **state)
{
	struct machine *m = fake_machine_create();

	(void)state;
	i8259_create(m);
	lapic_create(m);
	ioapic_create(m);
	i8254_create(m);
	mc146818_create(m);
	acpi_pm_create(m);
	for (unsigned i = 0; i < STEPS; i++) {
		uint64_t ns = pause_ns();
		unsigned before = fake_timers_run(m);

		step(m);
		if (chance() % 4)
			fake_clock_advance(m, ns);
		else
			fake_clock_jump(m, ns);
		/* Two timers of at least 50 us, the RTC's 122 us, the PM timer, and what a write may cause.
		 */
		assert_in_range(fake_timers_run(m) - before, 0, ns / 20000 + 16);
	}
	device_free_all(m);
	fake_machine_destroy(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(anything),
	};

	return cmocka_run_group_tests_name("hostile", tests, NULL, NULL);
}
