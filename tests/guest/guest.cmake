# How Multiboot guests are built upon the runtime in lib/: included by every folder that has some.
#     guest_runtime(objects)
#     guest_object(objects ${GUEST_LIB}/guest.c NAME-lib -DTEST_NAME="NAME")
#     guest_object(objects NAME.c NAME)
#     guest_link(elf NAME ${objects})
include_guard()
find_program(BT86_GUEST_CC NAMES gcc REQUIRED DOC "gcc that can compile with -m32")

set(GUEST_LIB ${CMAKE_CURRENT_LIST_DIR}/lib)
set(GUEST_LINK_SCRIPT ${CMAKE_CURRENT_LIST_DIR}/link.ld)
set(guest_flags -m32 -march=i486 -O2 -g0 -std=gnu17 -Wall -Wextra -Wshadow -Wstrict-prototypes -Wno-missing-field-initializers -Wno-array-bounds -Werror
    -ffreestanding -fno-pic -fno-pie -fno-builtin -fno-tree-loop-distribute-patterns -fno-stack-protector
    -fno-asynchronous-unwind-tables -fno-toplevel-reorder -fcf-protection=none -mno-sse -mno-mmx -mno-80387
    -I${GUEST_LIB})

# guest_object(variable source object-name flags...): compile source, append the object to variable
function(guest_object variable source name)
	set(object ${CMAKE_CURRENT_BINARY_DIR}/${name}.o)
	get_filename_component(file ${source} ABSOLUTE)
	add_custom_command(
		OUTPUT ${object}
		COMMAND ${BT86_GUEST_CC} ${guest_flags} ${ARGN} -MD -MF ${object}.d -c ${file} -o ${object}
		DEPENDS ${file}
		DEPFILE ${object}.d
		COMMENT "Building guest object ${name}"
		VERBATIM)
	set(${variable} ${${variable}} ${object} PARENT_SCOPE)
endfunction()

# guest_runtime(variable): the part of the runtime that is the same in every guest
function(guest_runtime variable)
	guest_object(${variable} ${GUEST_LIB}/entry.S lib-entry)
	set(${variable} ${${variable}} PARENT_SCOPE)
endfunction()

# guest_link(variable name objects...): name.elf; its path goes to variable
function(guest_link variable name)
	set(elf ${CMAKE_CURRENT_BINARY_DIR}/${name}.elf)
	add_custom_command(
		OUTPUT ${elf}
		COMMAND ${BT86_GUEST_CC} -m32 -ffreestanding -fno-pic -no-pie -nostdlib -static -Wl,-m,elf_i386
			-Wl,--build-id=none -Wl,--no-warn-rwx-segments -Wl,-z,noexecstack
			-T ${GUEST_LINK_SCRIPT} ${ARGN} -o ${elf}
		DEPENDS ${ARGN} ${GUEST_LINK_SCRIPT}
		COMMENT "Linking guest ${name}.elf"
		VERBATIM)
	set(${variable} ${elf} PARENT_SCOPE)
endfunction()
