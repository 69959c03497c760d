// Node's zlib has CRC-32 alone. Eight bytes a step ("slicing by 8", Kounavis and Berry 2005).

/** The Castagnoli polynomial, reflected. */
const POLYNOMIAL = 0x82f63b78;

const TABLES = tables();

function tables(): Uint32Array[] {
  const made = Array.from({ length: 8 }, () => new Uint32Array(256));
  for (let byte = 0; byte < 256; byte++) {
    let sum = byte;
    for (let bit = 0; bit < 8; bit++) {
      sum = sum & 1 ? (sum >>> 1) ^ POLYNOMIAL : sum >>> 1;
    }
    made[0][byte] = sum;
  }
  for (let byte = 0; byte < 256; byte++) {
    for (let each = 1; each < 8; each++) {
      const before = made[each - 1][byte];
      made[each][byte] = (before >>> 8) ^ made[0][before & 255];
    }
  }
  return made;
}

/** CRC-32C of what `sum` is that of, followed by `data`; of nothing it is 0. */
export function crc32c(data: Uint8Array, sum = 0): number {
  const [t0, t1, t2, t3, t4, t5, t6, t7] = TABLES;
  let crc = ~sum;
  let at = 0;
  for (; at + 8 <= data.length; at += 8) {
    crc ^= data[at] | (data[at + 1] << 8) | (data[at + 2] << 16) | (data[at + 3] << 24);
    crc =
      t7[crc & 255] ^ t6[(crc >>> 8) & 255] ^ t5[(crc >>> 16) & 255] ^ t4[crc >>> 24] ^
      t3[data[at + 4]] ^ t2[data[at + 5]] ^ t1[data[at + 6]] ^ t0[data[at + 7]];
  }
  for (; at < data.length; at++) {
    crc = (crc >>> 8) ^ t0[(crc ^ data[at]) & 255];
  }
  return ~crc >>> 0;
}
