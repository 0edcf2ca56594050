/* A toy in the place of PLUMED's kernel: DISTANCE, RESTRAINT and METAD, spoken to as PLUMED is.
 *
 * It has none of PLUMED's code. It tells whether psiflow calls in the right order, with the right units and signs,
 * and brings a walker's hills back; what PLUMED itself would say, it cannot tell. Table: Plumed.h of the wrapper.
 *   gcc -shared -fPIC -O1 -o libtoy.so plumed_kernel.c -lm
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { void *ptr; void (*handler)(void *, int, const char *, const void *); } handler;
typedef struct { double center, height; } hill;
typedef struct {
  double md_energy, md_length, energy, length; /* units, in kJ/mol and nm: the caller's, the input's */
  double timestep, kbt;                        /* of the caller */
  int atoms, engine, log, restart, ready, prepared, done, first;
  long step;
  int i, j;                                    /* DISTANCE */
  double at, kappa;                            /* RESTRAINT */
  double sigma, height, factor, value;         /* METAD, and the distance */
  int pace, count;
  FILE *file;
  hill *hills;
  const double *masses, *charges, *positions, *box;
  double *forces, *virial, bias;
} toy;

static const char *word(const char *line, const char *key) {
  static char found[1000];
  const char *start = strstr(line, key);
  if (!start) return NULL;
  sscanf(start + strlen(key), "%999s", found);
  return found;
}

static double number(const char *line, const char *key, double otherwise) {
  const char *found = word(line, key);
  return found ? atof(found) : otherwise;
}

static void put(toy *t, double center, double height) {
  t->hills = realloc(t->hills, (t->count + 1) * sizeof(hill));
  t->hills[t->count++] = (hill){center, height};
}

static double hills(toy *t, double s, double *slope) {
  double sum = 0;
  for (int n = 0; n < t->count; n++) {
    double away = (s - t->hills[n].center) / t->sigma, one = t->hills[n].height * exp(-away * away / 2);
    sum += one;
    *slope -= one * away / t->sigma;
  }
  return sum;
}

static const char *open_hills(toy *t, const char *name) {
  double time, center, height;
  if (t->restart) {
    FILE *old = fopen(name, "r");
    if (!old) return "the file of hills is not there";
    while (fscanf(old, "%lf %lf %lf", &time, &center, &height) == 3) put(t, center, height);
    fclose(old);
  }
  t->file = fopen(name, t->restart ? "a" : "w");
  return t->file ? NULL : "the file of hills cannot be opened";
}

static const char *read_line(toy *t, const char *line) {
  double kj_mol = 1, nm = 1, ev = 96.48533212331002;
  if (strstr(line, "UNITS")) {
    t->energy = strstr(line, "ENERGY=eV") ? ev : kj_mol;
    t->length = strstr(line, "LENGTH=A") ? 0.1 : nm;
  } else if (strstr(line, "DISTANCE")) {
    if (!word(line, "ATOMS=") || sscanf(word(line, "ATOMS="), "%d,%d", &t->i, &t->j) != 2) return "ATOMS is wrong";
    if (t->i < 1 || t->i > t->atoms || t->j < 1 || t->j > t->atoms) return "atom out of range";
  } else if (strstr(line, "RESTRAINT")) {
    t->at = number(line, "AT=", 0);
    t->kappa = number(line, "KAPPA=", 0);
  } else if (strstr(line, "METAD")) {
    t->sigma = number(line, "SIGMA=", 0);
    t->height = number(line, "HEIGHT=", 0);
    t->pace = (int)number(line, "PACE=", 0);
    t->factor = number(line, "BIASFACTOR=", 0);
    if (t->factor && !t->kbt) return "Unless the MD engine passes the temperature, specify it using TEMP";
    return open_hills(t, word(line, "FILE=") ? word(line, "FILE=") : "HILLS");
  } else if (!strstr(line, "PRINT")) {
    return "I cannot understand line";
  }
  return NULL;
}

static const char *calculate(toy *t) {
  if (!t->prepared) return "performCalc before prepareCalc";
  double scale = t->md_length / t->length, apart[3], slope = 0, s = 0;
  for (int k = 0; k < 3; k++) apart[k] = t->positions[3 * (t->j - 1) + k] - t->positions[3 * (t->i - 1) + k];
  for (int row = 2; t->box && row >= 0; row--) { /* short distances in cells that are hardly skewed */
    const double *a = t->box + 3 * row, *b = t->box + 3 * ((row + 1) % 3), *c = t->box + 3 * ((row + 2) % 3);
    double n[3] = {b[1] * c[2] - b[2] * c[1], b[2] * c[0] - b[0] * c[2], b[0] * c[1] - b[1] * c[0]};
    double turns = round((n[0] * apart[0] + n[1] * apart[1] + n[2] * apart[2]) / (n[0] * a[0] + n[1] * a[1] + n[2] * a[2]));
    for (int k = 0; k < 3; k++) apart[k] -= turns * a[k];
  }
  double r = sqrt(apart[0] * apart[0] + apart[1] * apart[1] + apart[2] * apart[2]);
  t->value = s = r * scale;
  t->bias = hills(t, s, &slope) + t->kappa * (s - t->at) * (s - t->at) / 2;
  slope = (slope + t->kappa * (s - t->at)) * scale * t->energy / t->md_energy; /* of the caller's */
  for (int k = 0; k < 3; k++) {
    t->forces[3 * (t->i - 1) + k] += slope * apart[k] / r;
    t->forces[3 * (t->j - 1) + k] -= slope * apart[k] / r;
    for (int l = 0; l < 3; l++) t->virial[3 * k + l] += slope * apart[k] * apart[l] / r;
  }
  t->prepared = 0;
  t->done = 1;
  return NULL;
}

static const char *update(toy *t) {
  double height = t->height, slope = 0;
  if (!t->done) return "update before performCalc";
  if (t->pace && !t->first && t->step % t->pace == 0) {
    double kbt = t->kbt * t->md_energy / t->energy;
    if (t->factor) height *= exp(-hills(t, t->value, &slope) / (kbt * (t->factor - 1)));
    put(t, t->value, height);
    fprintf(t->file, "%f %14.9f %14.9f\n", t->step * t->timestep, t->value, height);
  }
  t->first = 0;
  return NULL;
}

#define BEFORE(name, act) if (!strcmp(key, name)) { if (t->ready) return name " after init"; act; return NULL; }
#define AFTER(name, act) if (!strcmp(key, name)) { if (!t->ready) return name " before init"; act; return NULL; }

static const char *obey(toy *t, const char *key, const void *val) {
  if (!strcmp(key, "getApiVersion")) return *(int *)val = 9, NULL;
  BEFORE("setRealPrecision", if (*(int *)val != 8) return "only double precision")
  BEFORE("setMDEnergyUnits", t->md_energy = *(double *)val)
  BEFORE("setMDLengthUnits", t->md_length = *(double *)val)
  BEFORE("setMDTimeUnits", if (*(double *)val != 1e-3) return "the time is not in fs")
  BEFORE("setMDMassUnits", if (*(double *)val != 1) return "masses are not in u")
  BEFORE("setMDChargeUnits", if (*(double *)val != 1) return "charges are not in e")
  BEFORE("setNatoms", t->atoms = *(int *)val)
  BEFORE("setMDEngine", t->engine = 1)
  BEFORE("setTimestep", t->timestep = *(double *)val)
  BEFORE("setKbT", t->kbt = *(double *)val)
  BEFORE("setRestart", t->restart = *(int *)val)
  BEFORE("setLogFile", FILE *log = fopen(val, "w"); if (!log) return "no log";
         fprintf(log, "PLUMED: Version: toy (git: none)\n"); fclose(log))
  BEFORE("init", t->ready = 1)
  AFTER("readInputLine", return read_line(t, val))
  AFTER("setStep", t->step = *(int *)val; t->masses = t->charges = t->positions = t->box = NULL; t->done = 0)
  AFTER("setMasses", t->masses = val)
  AFTER("setCharges", t->charges = val)
  AFTER("setPositions", t->positions = val)
  AFTER("setBox", t->box = val)
  AFTER("setForces", t->forces = (double *)val)
  AFTER("setVirial", t->virial = (double *)val)
  AFTER("prepareCalc", if (!t->masses || !t->charges || !t->positions || !t->forces || !t->virial)
        return "an array is missing"; t->prepared = 1)
  AFTER("performCalcNoUpdate", return calculate(t))
  AFTER("getBias", *(double *)val = t->bias * t->energy / t->md_energy)
  AFTER("update", return update(t))
  return "cannot interpret cmd";
}

static void *create(void) {
  toy *t = calloc(1, sizeof(toy));
  t->energy = t->length = t->md_energy = t->md_length = 1;
  t->first = 1;
  return t;
}

static void cmd_nothrow(void *t, const char *key, const void *val, handler h) {
  const char *wrong = obey(t, key, val);
  if (wrong) h.handler(h.ptr, 20000, wrong, NULL);
}

static void cmd(void *t, const char *key, const void *val) {
  if (obey(t, key, val)) abort();
}

static void finalize(void *p) {
  toy *t = p;
  if (t->file) fclose(t->file);
  free(t->hills);
  free(t);
}

struct {
  int version;
  void *(*create)(void);
  void (*cmd)(void *, const char *, const void *);
  void (*finalize)(void *);
  void (*cmd_nothrow)(void *, const char *, const void *, handler);
} plumed_symbol_table = {2, create, cmd, finalize, cmd_nothrow};
