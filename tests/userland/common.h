/* What the guest programs share: a generator and a hash that give the same numbers everywhere. */
#ifndef BT86_USERLAND_COMMON_H
#define BT86_USERLAND_COMMON_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct hash {
	uint64_t value;
	unsigned long count;
};

static inline void hash_start(struct hash *h)
{
	h->value = 0xcbf29ce484222325u;
	h->count = 0;
}

/* Folds size bytes into the hash (FNV-1a over 32-bit words, then the odd bytes). */
static inline void hash_bytes(struct hash *h, const void *data, size_t size)
{
	const unsigned char *p = data;
	uint32_t word;

	for (; size >= 4; size -= 4, p += 4) {
		memcpy(&word, p, 4);
		h->value = (h->value ^ word) * 0x100000001b3u;
		h->value ^= h->value >> 29;
	}
	for (; size; size--)
		h->value = (h->value ^ *p++) * 0x100000001b3u;
	h->count++;
}

#define hash_add(h, x) hash_bytes((h), &(x), sizeof(x))

static inline void hash_print(const struct hash *h, const char *family)
{
	printf("%-22s %8lu %016llx\n", family, h->count, (unsigned long long)h->value);
}

/* xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators" (2016). */
static inline uint64_t random_next(uint64_t *state)
{
	uint64_t x = *state;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	*state = x;
	return x * 0x2545f4914f6cdd1du;
}

/* expect CONDITION: says which expectation failed and ends the program. */
#define expect(condition)                                                                   \
	do {                                                                                    \
		if (!(condition)) {                                                                 \
			printf("FAILED %s:%d: %s\n", __FILE__, __LINE__, #condition);                   \
			exit(1);                                                                        \
		}                                                                                   \
	} while (0)

#endif
