/* kvm_backing.c - what stands behind /dev/kvm.
 *
 * VT-x is kvm_intel on a CPU that has VMX, SVM is kvm_amd on one that has it; their module parameters say
 * whether the CPU walks the guest's page tables. Any other module is a software KVM: it may serve 64-bit
 * guests well and emulates 32-bit ones instruction by instruction, and must not pass for hardware assist.
 */
#include "vmm/kvm.h"

#include <cpuid.h>
#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define LEAF1_ECX_VMX	     (1u << 5)
#define LEAF1_ECX_HYPERVISOR (1u << 31)
#define LEAF80000001_ECX_SVM (1u << 2)

static bool exists(const char *root, const char *module)
{
	char path[256];

	snprintf(path, sizeof path, "%s/sys/module/%s", root, module);
	return access(path, F_OK) == 0;
}

/* A module's boolean parameter: Y or 1. */
static bool parameter(const char *root, const char *module, const char *name)
{
	char path[256], value = 0;

	snprintf(path, sizeof path, "%s/sys/module/%s/parameters/%s", root, module, name);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	if (read(fd, &value, 1) != 1)
		value = 0;
	close(fd);
	return value == 'Y' || value == '1';
}

/* The module kvm_something that serves the device. */
static void find_module(const char *root, char *name, size_t len)
{
	char path[256];

	snprintf(path, sizeof path, "%s/sys/module", root);
	DIR *d = opendir(path);
	for (struct dirent *e; d && (e = readdir(d));) {
		if (!strncmp(e->d_name, "kvm_", 4) && strlen(e->d_name) < len) {
			strcpy(name, e->d_name);
			break;
		}
	}
	if (d)
		closedir(d);
}

void kvm_backing_classify(struct kvm_backing *b, const char *root, bool vmx, bool svm, bool in_vm)
{
	*b = (struct kvm_backing){.kind = KVM_SOFTWARE, .in_vm = in_vm, .paging32 = true};
	if (vmx && exists(root, "kvm_intel")) {
		b->kind = KVM_VTX;
		b->nested_paging = parameter(root, "kvm_intel", "ept");
	} else if (svm && exists(root, "kvm_amd")) {
		b->kind = KVM_SVM;
		b->nested_paging = parameter(root, "kvm_amd", "npt");
	} else {
		find_module(root, b->module, sizeof b->module);
	}
}

void kvm_backing_detect(struct kvm_backing *b, const char *root)
{
	unsigned eax, ebx, ecx = 0, ecx8 = 0, edx;

	__get_cpuid(1, &eax, &ebx, &ecx, &edx);
	__get_cpuid(0x80000001, &eax, &ebx, &ecx8, &edx);
	kvm_backing_classify(b, root, ecx & LEAF1_ECX_VMX, ecx8 & LEAF80000001_ECX_SVM,
			     ecx & LEAF1_ECX_HYPERVISOR);
}

void kvm_backing_describe(const struct kvm_backing *b, char *text, size_t len)
{
	const char *nested = b->in_vm ? ", itself virtualized" : "";

	if (b->kind == KVM_SOFTWARE)
		snprintf(text, len, "software KVM%s%s%s: no hardware assist, 32-bit code is emulated%s",
			 *b->module ? " (module " : "", b->module, *b->module ? ")" : "",
			 b->paging32 ? "" : "; no 32-bit paging, the interpreter runs paged code");
	else if (b->nested_paging)
		snprintf(text, len, "hardware assist: %s with nested paging (%s)%s",
			 b->kind == KVM_VTX ? "VT-x" : "SVM", b->kind == KVM_VTX ? "EPT" : "NPT", nested);
	else
		snprintf(text, len, "hardware assist: %s without nested paging (shadow page tables)%s",
			 b->kind == KVM_VTX ? "VT-x" : "SVM", nested);
}
