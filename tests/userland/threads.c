/* Threads with thread-local storage, which static glibc reaches through %gs: every switch between threads
 * has to bring the right segment base along. */
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include "common.h"

#define THREADS 8
#define ROUNDS 20000

static __thread uint32_t tls_counter;
static __thread uint32_t tls_array[64];
static __thread int tls_initialized = 12345;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_barrier_t barrier;
static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static unsigned once_calls, destructor_calls;
static uint32_t atomic_total, locked_total;

static void once_body(void)
{
	once_calls++;
}

static void destructor(void *value)
{
	pthread_mutex_lock(&mutex);
	destructor_calls += *(unsigned *)value;
	pthread_mutex_unlock(&mutex);
	free(value);
}

static void *worker(void *argument)
{
	uint32_t id = (uint32_t)(uintptr_t)argument;
	unsigned *specific = malloc(sizeof(*specific));
	uint64_t seed = id + 1;
	struct hash h;

	*specific = id;
	pthread_setspecific(key, specific);
	pthread_once(&once, once_body);
	hash_start(&h);
	expect(tls_initialized == 12345 && tls_counter == 0);
	tls_initialized = (int)id;
	pthread_barrier_wait(&barrier);
	for (unsigned i = 0; i < ROUNDS; i++) {
		uint32_t r = (uint32_t)random_next(&seed);

		tls_counter++;
		tls_array[r % 64] += r ^ id;
		__atomic_fetch_add(&atomic_total, 1, __ATOMIC_SEQ_CST);
		if (i % 16 == 0) {
			pthread_mutex_lock(&mutex);
			locked_total += id;
			pthread_mutex_unlock(&mutex);
		}
		if (i % 256 == 0)
			sched_yield();
		if (i % 4096 == 0)
			pthread_barrier_wait(&barrier);
	}
	expect(tls_counter == ROUNDS && tls_initialized == (int)id);
	expect(*(unsigned *)pthread_getspecific(key) == id);
	hash_add(&h, tls_array);
	return (void *)(uintptr_t)(uint32_t)(h.value ^ h.value >> 32);
}

/* A producer and a consumer over a condition variable. */
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static uint32_t queue[16];
static unsigned queue_in, queue_out;

static void *producer(void *argument)
{
	(void)argument;
	for (uint32_t i = 0; i < ROUNDS; i++) {
		pthread_mutex_lock(&mutex);
		while (queue_in - queue_out == 16)
			pthread_cond_wait(&cond, &mutex);
		queue[queue_in++ % 16] = i * 2654435761u;
		pthread_cond_broadcast(&cond);
		pthread_mutex_unlock(&mutex);
	}
	return NULL;
}

static void *short_lived(void *argument)
{
	tls_counter += (uint32_t)(uintptr_t)argument;
	return (void *)(uintptr_t)tls_counter;
}

int main(void)
{
	pthread_t threads[THREADS];
	uint32_t sum = 0;
	struct hash h;

	pthread_key_create(&key, destructor);
	pthread_barrier_init(&barrier, NULL, THREADS);
	for (uintptr_t i = 0; i < THREADS; i++)
		expect(!pthread_create(&threads[i], NULL, worker, (void *)i));
	for (unsigned i = 0; i < THREADS; i++) {
		void *result;

		pthread_join(threads[i], &result);
		printf("worker %u: %08x\n", i, (unsigned)(uintptr_t)result);
	}
	printf("atomic %u locked %u once %u destructors %u\n", atomic_total, locked_total, once_calls, destructor_calls);

	hash_start(&h);
	pthread_create(&threads[0], NULL, producer, NULL);
	for (unsigned i = 0; i < ROUNDS; i++) {
		pthread_mutex_lock(&mutex);
		while (queue_in == queue_out)
			pthread_cond_wait(&cond, &mutex);
		uint32_t item = queue[queue_out++ % 16];

		pthread_cond_broadcast(&cond);
		pthread_mutex_unlock(&mutex);
		hash_add(&h, item);
	}
	pthread_join(threads[0], NULL);
	hash_print(&h, "queue");

	for (uintptr_t i = 0; i < 400; i++) {
		void *result;

		expect(!pthread_create(&threads[0], NULL, short_lived, (void *)i));
		pthread_join(threads[0], &result);
		sum += (uint32_t)(uintptr_t)result;
	}
	printf("short-lived %u\n", sum);
	return 0;
}
