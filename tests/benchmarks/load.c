/* A load generator for kvd's line protocol and for Redis's RESP: one thread, epoll, closed loop.
 *
 * Every client sends a batch of requests, waits for all the replies to it, and sends the next one. What is sent is the
 * same for both protocols, so that what differs is the server. Replies are told apart as the protocol says, and those
 * that are errors are counted.
 *
 *     load PORT KIND [NAME=NUMBER ...]
 *
 * KIND   get, put, transaction (two reads, then two writes, in two round trips), or fill (each key once, then the end)
 * resp=1 speak RESP             clients=50   connections         depth=1        requests in a batch
 * keys=50000 to choose from     value=3      bytes of a value    seconds=1      that are measured
 * warmup=0.2 seconds before     polite=0     with 1: one more client asks for a key each millisecond, alone, and
 *                                            the latencies are its own
 *
 * One line of JSON tells what was measured; latencies are in milliseconds, from the first byte sent of a batch to the
 * last one received. Keys have 16 bytes. Every client has a share of the keys for its transactions, so that nothing
 * conflicts.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static long resp = 0, n_clients = 50, depth = 1, n_keys = 50000, value_size = 3, polite = 0;
static double seconds = 1, warmup = 0.2;
static char *value;

static void die(const char *what)
{
    fprintf(stderr, "load: %s%s%s\n", what, errno ? ": " : "", errno ? strerror(errno) : "");
    exit(1);
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* SplitMix64, as Steele, Lea and Flood published it (Fast splittable pseudorandom number generators, 2014). */
static uint64_t random_below(uint64_t limit)
{
    static uint64_t state = 42;
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (z ^ z >> 31) % limit;
}

/* Latencies: 64 steps to each doubling of a nanosecond, so a figure is right to 1.6 %. */

#define STEPS 64
static uint64_t histogram[64 * STEPS], measured;
static int64_t longest;

static void note_latency(int64_t ns)
{
    int power = ns < STEPS ? 0 : 63 - __builtin_clzll(ns) - 6;
    histogram[power * STEPS + (ns >> power)]++;
    measured++;
    if (ns > longest)
        longest = ns;
}

static double percentile(double percent)
{
    uint64_t wanted = ceil(measured * percent / 100), seen = 0;
    for (int i = 0; i < 64 * STEPS - STEPS && measured; i++)
        if ((seen += histogram[i]) >= wanted) {
            /* Indexes of a power begin at STEPS in the one before it. */
            int power = i < 2 * STEPS ? 0 : i / STEPS - 1;
            return ldexp(i - power * STEPS, power) / 1e6;
        }
    return longest / 1e6;
}

/* Clients. */

enum { IN_LINE, IN_BODY }; /* what the next byte of a reply belongs to */

struct client {
    int fd, number;
    int second_half; /* of a transaction */
    long batch;      /* requests in the batch that is out */
    long awaited;    /* replies */
    int64_t since;
    char *out; /* what could not be sent at once */
    size_t out_size, out_done;
    /* RESP: */
    int state, at_start, negative;
    char type;
    long number_read, elements;
    int64_t body; /* bytes of a string that are still to come, its line end included */
};

enum { GET, PUT, TRANSACTION, FILL } kind;
static struct client *clients;
static int poller;
static uint64_t answered, errors, filled;
static char error_example[200];

/* Requests. All of a batch is made in one buffer. */

static char *buffer, *end;

static void add(const char *bytes, size_t size)
{
    memcpy(end, bytes, size);
    end += size;
}

static void add_text(const char *text)
{
    add(text, strlen(text));
}

static void add_key(uint64_t number)
{
    char key[16] = "key:000000000000";
    for (int i = 15; number; i--, number /= 10)
        key[i] += number % 10;
    if (resp)
        add_text("$16\r\n");
    add(key, 16);
    if (resp)
        add_text("\r\n");
}

static void add_value(void)
{
    if (resp)
        end += sprintf(end, "$%ld\r\n", value_size);
    add(value, value_size);
    add_text(resp ? "\r\n" : "\n");
}

static void add_get(uint64_t key)
{
    add_text(resp ? "*2\r\n$3\r\nGET\r\n" : "GET ");
    add_key(key);
    if (!resp)
        add_text("\n");
}

static void add_put(uint64_t key)
{
    add_text(resp ? "*3\r\n$3\r\nSET\r\n" : "PUT ");
    add_key(key);
    if (!resp)
        add_text(" ");
    add_value();
}

/* One of the client's own keys; neighbours share them if there are more clients than keys. */
static uint64_t own_key(struct client *c)
{
    uint64_t share = n_keys / n_clients ? n_keys / n_clients : 1;
    return (c->number * share + random_below(share)) % n_keys;
}

/* Each half of a transaction works on the same two keys. */
static void add_transaction_half(struct client *c)
{
    static uint64_t (*chosen)[2];
    if (!chosen && !(chosen = calloc(n_clients, sizeof *chosen)))
        die("memory");
    uint64_t *keys = chosen[c->number];
    if (!c->second_half) {
        keys[0] = own_key(c);
        keys[1] = own_key(c);
        if (resp) {
            add_text("*3\r\n$5\r\nWATCH\r\n");
            add_key(keys[0]);
            add_key(keys[1]);
        } else
            add_text("START\n");
        add_get(keys[0]);
        add_get(keys[1]);
        c->awaited = 3;
    } else {
        if (resp)
            add_text("*1\r\n$5\r\nMULTI\r\n");
        add_put(keys[0]);
        add_put(keys[1]);
        add_text(resp ? "*1\r\n$4\r\nEXEC\r\n" : "COMMIT\n");
        c->awaited = resp ? 4 : 3;
    }
}

static void watch(struct client *c, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (epoll_ctl(poller, operation, c->fd, &event))
        die("epoll_ctl");
}

static void send_buffer(struct client *c)
{
    size_t size = end - buffer;
    ssize_t sent = send(c->fd, buffer, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN)
        die("send");
    if (sent < 0)
        sent = 0;
    if ((size_t)sent < size) {
        c->out_size = size - sent;
        c->out_done = 0;
        if (!(c->out = realloc(c->out, c->out_size)))
            die("memory");
        memcpy(c->out, buffer + sent, c->out_size);
        watch(c, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
    }
}

static void send_rest(struct client *c)
{
    ssize_t sent = send(c->fd, c->out + c->out_done, c->out_size - c->out_done, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN)
        die("send");
    if (sent > 0 && (c->out_done += sent) == c->out_size)
        watch(c, EPOLL_CTL_MOD, EPOLLIN);
}

/* The keys of a fill come in no order, each once: 2654435761 is a prime, and divides no number of keys that we use. */
static uint64_t next_filled(void)
{
    return filled++ * 2654435761u % n_keys;
}

static void send_batch(struct client *c, int64_t now)
{
    end = buffer;
    c->batch = kind == TRANSACTION ? 1 : depth;
    c->awaited = c->batch;
    switch (kind) {
    case GET:
        for (long i = 0; i < depth; i++)
            add_get(random_below(n_keys));
        break;
    case PUT:
        for (long i = 0; i < depth; i++)
            add_put(random_below(n_keys));
        break;
    case TRANSACTION:
        add_transaction_half(c);
        break;
    case FILL:
        c->awaited = 0;
        for (; c->awaited < depth && filled < (uint64_t)n_keys; c->awaited++)
            add_put(next_filled());
        c->batch = c->awaited;
        break;
    }
    if (!c->second_half)
        c->since = now;
    if (c->awaited)
        send_buffer(c);
}

/* Replies. */

static void note_error(const char *reply, const char *behind)
{
    if (!errors++) {
        size_t size = behind - reply < (long)sizeof error_example - 1 ? behind - reply : (long)sizeof error_example - 1;
        for (size_t i = 0; i < size && reply[i] != '\r' && reply[i] != '\n'; i++)
            error_example[i] = reply[i] == '"' || reply[i] == '\\' ? '\'' : reply[i];
    }
}

/* Lines: an error is one that begins so; a line of which only a piece came is looked at by its first piece. */
static void take_lines(struct client *c, const char *data, const char *behind)
{
    static const char error[] = "{\"status\": \"E";
    while (data < behind) {
        const char *next = memchr(data, '\n', behind - data);
        if (c->at_start && behind - data >= (long)sizeof error - 1 && !memcmp(data, error, sizeof error - 1))
            note_error(data, behind);
        c->at_start = next != NULL;
        if (!next)
            return;
        c->awaited--;
        data = next + 1;
    }
}

static void element_over(struct client *c)
{
    c->state = IN_LINE;
    c->at_start = 1;
    if (!--c->elements)
        c->awaited--;
}

/* RESP 2: simple strings, errors, integers, strings with their size in front, and arrays of these. */
static void take_resp(struct client *c, const char *data, const char *behind)
{
    static const char refused[] = "EXEC was refused";
    while (data < behind) {
        if (c->state == IN_BODY) {
            int64_t some = behind - data < c->body ? behind - data : c->body;
            data += some;
            if (!(c->body -= some))
                element_over(c);
            continue;
        }
        if (c->at_start) {
            c->type = *data;
            if (c->type == '-')
                note_error(data, behind);
            if (!c->elements)
                c->elements = 1;
            c->at_start = c->negative = 0;
            c->number_read = 0;
            data++;
            continue;
        }
        if (*data != '\n') {
            if (*data == '-')
                c->negative = 1;
            else if (*data >= '0' && *data <= '9' && (c->type == '$' || c->type == '*'))
                c->number_read = c->number_read * 10 + (*data - '0');
            data++;
            continue;
        }
        data++;
        if (c->type == '$' && !c->negative) {
            c->state = IN_BODY;
            c->body = c->number_read + 2;
        } else if (c->type == '*' && !c->negative) {
            c->elements += c->number_read; /* which stand in the place of the array itself: */
            element_over(c);
        } else {
            if (c->type == '*')
                note_error(refused, refused + sizeof refused - 1);
            element_over(c);
        }
    }
}

static char received[256 * 1024];

/* Returns whether a batch, or half of a transaction, is answered. */
static int receive(struct client *c)
{
    ssize_t size = recv(c->fd, received, sizeof received, MSG_DONTWAIT);
    if (size < 0 && errno == EAGAIN)
        return 0;
    if (size <= 0)
        die(size ? "recv" : "the server has closed a connection");
    (resp ? take_resp : take_lines)(c, received, received + size);
    return c->awaited <= 0;
}

static void connect_client(struct client *c, int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int one = 1;
    if ((c->fd = socket(AF_INET, SOCK_STREAM, 0)) < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof address))
        die("connect");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    c->at_start = 1;
    watch(c, EPOLL_CTL_ADD, EPOLLIN);
}

static double cpu_seconds(void)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static void read_arguments(int count, char **words)
{
    const struct { const char *name; long *whole; double *real; } known[] = {
        {"resp", &resp, NULL}, {"clients", &n_clients, NULL}, {"depth", &depth, NULL}, {"keys", &n_keys, NULL},
        {"value", &value_size, NULL}, {"polite", &polite, NULL}, {"seconds", NULL, &seconds}, {"warmup", NULL, &warmup},
    };
    const char *kinds[] = {"get", "put", "transaction", "fill"};
    int found = 0;
    for (int i = 0; i < 4; i++)
        if (count > 2 && !strcmp(words[2], kinds[i])) {
            kind = i;
            found = 1;
        }
    for (int i = 3; found && i < count; i++) {
        char *equals = strchr(words[i], '=');
        found = 0;
        for (size_t k = 0; equals && k < sizeof known / sizeof *known; k++)
            if (strlen(known[k].name) == (size_t)(equals - words[i]) && !memcmp(words[i], known[k].name, equals - words[i])) {
                found = 1;
                if (known[k].whole)
                    *known[k].whole = atol(equals + 1);
                else
                    *known[k].real = atof(equals + 1);
            }
    }
    if (!found || n_clients < 1 || depth < 1 || n_keys < 1 || value_size < 0)
        die("the first lines of the source say what it takes");
}

int main(int count, char **words)
{
    read_arguments(count, words);
    int port = atoi(words[1]);
    struct rlimit files;
    if (!getrlimit(RLIMIT_NOFILE, &files)) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    clients = calloc(n_clients + 1, sizeof *clients);
    value = malloc(value_size + 1);
    buffer = malloc((depth + 4) * (value_size + 128));
    if (!clients || !value || !buffer || (poller = epoll_create1(0)) < 0)
        die("memory");
    memset(value, 'x', value_size);
    for (int i = 0; i < n_clients + !!polite; i++) {
        clients[i].number = i;
        connect_client(&clients[i], port);
    }
    struct client *guest = polite ? &clients[n_clients] : NULL;

    int64_t start = now_ns(), warm = start + warmup * 1e9, over = warm + seconds * 1e9, measured_from = start, now;
    double cpu = cpu_seconds();
    uint64_t answered_before = 0;
    int is_warm = 0, busy = 0;
    for (int i = 0; i < n_clients; i++) {
        send_batch(&clients[i], now_ns());
        busy += clients[i].awaited > 0;
    }
    struct epoll_event events[256];
    for (now = now_ns(); kind == FILL ? busy > 0 : now < over; now = now_ns()) {
        if (!is_warm && (now >= warm || kind == FILL)) {
            is_warm = 1;
            measured_from = now;
            answered_before = answered;
            cpu = cpu_seconds();
        }
        if (guest && !guest->awaited && now >= guest->since + 1000000) {
            end = buffer;
            add_get(random_below(n_keys));
            guest->awaited = 1;
            guest->since = now;
            send_buffer(guest);
        }
        int ready = epoll_wait(poller, events, 256, polite ? 1 : 100);
        for (int i = 0; i < ready; i++) {
            struct client *c = events[i].data.ptr;
            if (events[i].events & EPOLLOUT)
                send_rest(c);
            if (!(events[i].events & ~EPOLLOUT) || !receive(c))
                continue;
            now = now_ns();
            if (c == guest) {
                note_latency(now - c->since);
                continue;
            }
            if (kind == TRANSACTION && (c->second_half = !c->second_half)) {
                send_batch(c, now);
                continue;
            }
            answered += c->batch;
            if (is_warm && !guest)
                note_latency(now - c->since);
            send_batch(c, now);
            busy -= !c->awaited;
        }
    }
    double took = (now - measured_from) / 1e9;
    printf("{\"requests\": %llu, \"seconds\": %.6f, \"per_second\": %.1f, \"p50\": %.4f, \"p99\": %.4f, \"p99.9\": %.4f, "
           "\"max\": %.4f, \"errors\": %llu, \"example\": \"%s\", \"own_cpu_share\": %.3f}\n",
           (unsigned long long)(answered - answered_before), took, (answered - answered_before) / took, percentile(50),
           percentile(99), percentile(99.9), longest / 1e6, (unsigned long long)errors, error_example,
           (cpu_seconds() - cpu) / took);
    return 0;
}
