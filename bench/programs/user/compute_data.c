/* Programs whose cost is in what they do to their data: hashing, compressing, strings, floating point. */
#include <emmintrin.h>

#include "bench.h"

#define SEED 0x2545f4914f6cdd1du

/* SHA-256 (FIPS 180-4) of whole blocks, without the padding. */
static uint32_t sha_k[64];
/* the square roots' fractions, as the standard has them */
#define SHA_START                                                                                            \
	0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19

/* The constants are the fractions of the cube roots of the first primes. */
static void sha_constants(void)
{
	unsigned at = 0;

	for (unsigned p = 2; at < 64; p++) {
		bool prime = true;
		uint64_t low = 0, high = 16;

		for (unsigned d = 2; d * d <= p; d++)
			prime = prime && p % d;
		if (!prime)
			continue;
		/* the root with 32 bits behind the point, by bisection */
		low <<= 32;
		high <<= 32;
		while (high - low > 1) {
			uint64_t middle = (low + high) / 2;
			long double root = (long double)middle / 4294967296.0L;

			if (root * root * root <= p)
				low = middle;
			else
				high = middle;
		}
		sha_k[at++] = (uint32_t)low;
	}
}

static inline uint32_t rotate(uint32_t x, unsigned by)
{
	return x >> by | x << (32 - by);
}

static void sha_block(uint32_t state[8], const uint8_t *block)
{
	uint32_t w[64];

	for (unsigned i = 0; i < 16; i++)
		w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 |
		       (uint32_t)block[4 * i + 2] << 8 | block[4 * i + 3];
	for (unsigned i = 16; i < 64; i++)
		w[i] = w[i - 16] + w[i - 7] +
		       (rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3) +
		       (rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10);
	uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
	uint32_t e = state[4], f = state[5], g = state[6], h = state[7];

	for (unsigned i = 0; i < 64; i++) {
		uint32_t t = h + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + ((e & f) ^ (~e & g)) +
			     sha_k[i] + w[i];
		uint32_t u = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));

		h = g, g = f, f = e, e = d + t;
		d = c, c = b, b = a, a = t + u;
	}
	state[0] += a, state[1] += b, state[2] += c, state[3] += d;
	state[4] += e, state[5] += f, state[6] += g, state[7] += h;
}

/* The standard's example: "abc". */
static void sha_check(void)
{
	uint32_t state[8] = {SHA_START};
	uint8_t block[64] = {'a', 'b', 'c', 0x80};

	block[63] = 24;
	sha_block(state, block);
	expect(state[0] == 0xba7816bf && state[7] == 0xf20015ad);
}

#define HASHED 16384
static uint8_t hashed[HASHED];
static uint32_t crc_table[256];

static void hash_prepare(void)
{
	text_make((char *)hashed, HASHED, SEED);
	sha_constants();
	expect(sha_k[0] == 0x428a2f98 && sha_k[63] == 0xc67178f2);
	sha_check();
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t c = i;

		for (unsigned bit = 0; bit < 8; bit++)
			c = c & 1 ? c >> 1 ^ 0xedb88320 : c >> 1;
		crc_table[i] = c;
	}
}

static uint64_t sha256(unsigned n)
{
	uint32_t state[8] = {SHA_START};

	for (; n; n--)
		for (unsigned at = 0; at < HASHED; at += 64)
			sha_block(state, hashed + at);
	return (uint64_t)state[0] << 32 | state[7];
}

static uint64_t crc32(unsigned n)
{
	uint32_t crc = ~0u;

	for (; n; n--)
		for (unsigned i = 0; i < HASHED; i++)
			crc = crc_table[(crc ^ hashed[i]) & 255] ^ crc >> 8;
	return ~crc;
}

/*
 * LZ77 with a hash of four bytes to find earlier places: a control byte for eight items, each a literal byte
 * or two bytes of offset and one of length.
 */
#define LZ_SIZE 65536
#define LZ_HASH 4096
static uint8_t lz_input[LZ_SIZE], lz_packed[LZ_SIZE * 2], lz_output[LZ_SIZE];

static void lz_prepare(void)
{
	text_make((char *)lz_input, LZ_SIZE, SEED + 1);
}

static unsigned lz_hash(const uint8_t *p)
{
	uint32_t word;

	memcpy(&word, p, 4);
	return word * 2654435761u >> 20;
}

static unsigned lz_pack(void)
{
	static uint32_t heads[LZ_HASH];
	unsigned in = 0, out = 0, control = 0, items = 0;

	memset(heads, 0xff, sizeof(heads));
	while (in < LZ_SIZE) {
		unsigned length = 0, from = 0;

		if (!(items++ & 7)) {
			control = out++;
			lz_packed[control] = 0;
		}
		if (in + 4 <= LZ_SIZE) {
			unsigned h = lz_hash(lz_input + in);

			from = heads[h];
			heads[h] = in;
			if (from != ~0u && in - from < 65536)
				while (length < 255 && in + length < LZ_SIZE &&
				       lz_input[from + length] == lz_input[in + length])
					length++;
		}
		if (length < 4) {
			lz_packed[out++] = lz_input[in++];
			continue;
		}
		lz_packed[control] |= (uint8_t)(1 << ((items - 1) & 7));
		lz_packed[out++] = (uint8_t)(in - from);
		lz_packed[out++] = (uint8_t)((in - from) >> 8);
		lz_packed[out++] = (uint8_t)length;
		in += length;
	}
	return out;
}

static void lz_unpack(void)
{
	unsigned in = 0, out = 0, control = 0, items = 0;

	while (out < LZ_SIZE) {
		if (!(items++ & 7))
			control = lz_packed[in++];
		if (!(control >> ((items - 1) & 7) & 1)) {
			lz_output[out++] = lz_packed[in++];
			continue;
		}
		unsigned distance = lz_packed[in] | (unsigned)lz_packed[in + 1] << 8,
			 length = lz_packed[in + 2];

		in += 3;
		for (; length; length--, out++)
			lz_output[out] = lz_output[out - distance];
	}
}

static uint64_t lz(unsigned n)
{
	unsigned packed = 0;

	for (; n; n--) {
		packed = lz_pack();
		lz_unpack();
		expect(!memcmp(lz_input, lz_output, LZ_SIZE));
	}
	return packed;
}

/* The C library's functions on short and on long strings. */
#define STRINGS 32768
static char strings[STRINGS + 1];

static void strings_prepare(void)
{
	text_make(strings, STRINGS, SEED + 2);
	strings[STRINGS] = 0;
}

static uint64_t string_functions(unsigned n)
{
	static char word[256], line[4096];
	uint64_t sum = 0;

	for (; n; n--) {
		for (const char *p = strings; *p;) {
			size_t length = strcspn(p, " \n");

			if (length >= sizeof(word))
				length = sizeof(word) - 1;
			memcpy(word, p, length);
			word[length] = 0;
			sum += strlen(word) + (strcmp(word, "kernel") > 0) + (strchr(word, 'e') ? 3 : 0);
			p += length;
			p += strspn(p, " \n");
		}
		for (const char *p = strings, *end; (end = strchr(p, '\n')); p = end + 1) {
			size_t length =
				(size_t)(end - p) < sizeof(line) ? (size_t)(end - p) : sizeof(line) - 1;

			memcpy(line, p, length);
			line[length] = 0;
			sum = mix(sum,
				  length + (strstr(line, "guest x") ? 7 : 0) + (strrchr(line, 'a') ? 1 : 0));
		}
		sum += strlen(strings);
	}
	return sum;
}

#define DIM 64
static double left[DIM][DIM] __attribute__((aligned(16))), right[DIM][DIM] __attribute__((aligned(16))),
	product[DIM][DIM] __attribute__((aligned(16)));

static void matrix_prepare(void)
{
	uint64_t seed = SEED;

	for (unsigned i = 0; i < DIM; i++)
		for (unsigned j = 0; j < DIM; j++) {
			left[i][j] = (double)(random_next(&seed) & 1023) / 32;
			right[i][j] = (double)(random_next(&seed) & 1023) / 64;
		}
}

/* All sums are exact, so the order of additions does not matter. */
static uint64_t matrix_sum(void)
{
	uint64_t sum = 0, bits;

	for (unsigned i = 0; i < DIM; i++)
		for (unsigned j = 0; j < DIM; j++) {
			memcpy(&bits, &product[i][j], sizeof(bits));
			sum = mix(sum, bits);
		}
	return sum;
}

static uint64_t matrix_sse2(unsigned n)
{
	for (; n; n--)
		for (unsigned i = 0; i < DIM; i++)
			for (unsigned j = 0; j < DIM; j += 4) {
				__m128d a = _mm_setzero_pd(), b = _mm_setzero_pd();

				for (unsigned k = 0; k < DIM; k++) {
					__m128d l = _mm_load1_pd(&left[i][k]);

					a = _mm_add_pd(a, _mm_mul_pd(l, _mm_load_pd(&right[k][j])));
					b = _mm_add_pd(b, _mm_mul_pd(l, _mm_load_pd(&right[k][j + 2])));
				}
				_mm_store_pd(&product[i][j], a);
				_mm_store_pd(&product[i][j + 2], b);
			}
	return matrix_sum();
}

static uint64_t matrix_x87(unsigned n)
{
	for (; n; n--)
		for (unsigned i = 0; i < DIM; i++)
			for (unsigned j = 0; j < DIM; j++) {
				double sum = 0;

				for (unsigned k = 0; k < DIM; k++)
					sum += left[i][k] * right[k][j];
				product[i][j] = sum;
			}
	return matrix_sum();
}

/* Four kinds of work in turn, each feeding the next: a linked list, a matrix of words, a state machine, a
 * CRC. */
struct node {
	struct node *next;
	uint16_t key, data;
};

#define NODES 200
static struct node nodes[NODES];

static struct node *list_make(uint32_t seed)
{
	for (unsigned i = 0; i < NODES; i++) {
		seed = seed * 1103515245 + 12345;
		nodes[i].key = (uint16_t)(seed >> 16);
		nodes[i].data = (uint16_t)i;
		nodes[i].next = i + 1 < NODES ? &nodes[i + 1] : NULL;
	}
	return nodes;
}

static struct node *list_merge(struct node *a, struct node *b)
{
	struct node head, *tail = &head;

	while (a && b) {
		struct node **least = a->key <= b->key ? &a : &b;

		tail->next = *least;
		tail = *least;
		*least = (*least)->next;
	}
	tail->next = a ? a : b;
	return head.next;
}

static struct node *list_sort(struct node *list)
{
	struct node *slow = list, *fast = list, *second;

	if (!list || !list->next)
		return list;
	while (fast->next && fast->next->next) {
		slow = slow->next;
		fast = fast->next->next;
	}
	second = slow->next;
	slow->next = NULL;
	return list_merge(list_sort(list), list_sort(second));
}

#define SIDE 24
static uint32_t words_multiply(uint32_t seed)
{
	static int32_t a[SIDE][SIDE], b[SIDE][SIDE];
	uint32_t sum = 0;

	for (unsigned i = 0; i < SIDE; i++)
		for (unsigned j = 0; j < SIDE; j++) {
			a[i][j] = (int16_t)(seed += i * 7 + j);
			b[i][j] = (int16_t)(seed ^ (i << 4 | j));
		}
	for (unsigned i = 0; i < SIDE; i++)
		for (unsigned j = 0; j < SIDE; j++) {
			int32_t value = 0;

			for (unsigned k = 0; k < SIDE; k++)
				value += a[i][k] * b[k][j];
			sum += (uint32_t)(value >> 2) ^ (uint32_t)value << 3;
		}
	return sum;
}

/* Is it a number, and of which kind? */
static uint32_t scan_numbers(const char *p)
{
	enum { START, SIGN, DIGITS, POINT, FRACTION, EXPONENT, BAD, STATES } state = START;
	uint32_t seen[STATES] = {0}, sum = 0;

	for (; *p; p++) {
		if (*p == ',') {
			seen[state]++;
			state = START;
			continue;
		}
		switch (state) {
		case START:
			state = *p == '-' || *p == '+'	 ? SIGN
				: *p >= '0' && *p <= '9' ? DIGITS
				: *p == '.'		 ? POINT
							 : BAD;
			break;
		case SIGN:
		case DIGITS:
			state = *p >= '0' && *p <= '9' ? DIGITS
				: *p == '.'	       ? POINT
				: *p == 'e'	       ? EXPONENT
						       : BAD;
			break;
		case POINT:
		case FRACTION:
			state = *p >= '0' && *p <= '9' ? FRACTION : *p == 'e' ? EXPONENT : BAD;
			break;
		case EXPONENT:
			state = *p >= '0' && *p <= '9' ? EXPONENT : BAD;
			break;
		default:
			break;
		}
	}
	for (unsigned i = 0; i < STATES; i++)
		sum = sum * 17 + seen[i];
	return sum;
}

static uint64_t mixture(unsigned n)
{
	static const char numbers[] =
		"5012,1234,-874,+122,35.54400,.1234500,-110.700,+0.64400,5.500e3,-.123e5,"
		"T0.3e-1F,-T.T++Tq,1T3.4e4z,34.0e-T^,";
	uint32_t value = 1, crc = 0;

	for (; n; n--) {
		struct node *list = list_sort(list_make(value));

		for (unsigned i = 0; list; list = list->next, i++)
			value += (uint32_t)list->key * i ^ list->data;
		value ^= words_multiply(value);
		value += scan_numbers(numbers);
		for (unsigned i = 0; i < 4; i++)
			crc = crc_table[(crc ^ value >> 8 * i) & 255] ^ crc >> 8;
	}
	return (uint64_t)crc << 32 | value;
}

const struct bench compute_data[] = {
	{"sha256", hash_prepare, sha256, NULL, 2},
	{"crc32", hash_prepare, crc32, NULL, 24},
	{"lz", lz_prepare, lz, NULL, 4},
	{"strings", strings_prepare, string_functions, NULL, 4},
	{"matrix_sse2", matrix_prepare, matrix_sse2, NULL, 30},
	{"matrix_x87", matrix_prepare, matrix_x87, NULL, 20},
	{"mixture", hash_prepare, mixture, NULL, 80},
	{0},
};
