import { type FileHandle, open } from "node:fs/promises";

/** What an upload is made of: bytes that can be read again, from any offset. */
export interface Source {
  /** At most `length` bytes from `offset` on, in memory that is not used again; none only at the end. */
  read(offset: number, length: number): Promise<Uint8Array>;
}

/** The bytes of an array, which must not change meanwhile. */
export function bytesSource(bytes: Uint8Array): Source {
  return { read: async (offset, length) => bytes.subarray(offset, offset + length) };
}

/** The bytes of an open file. */
export function fileSource(file: FileHandle): Source {
  return {
    async read(offset, length) {
      const { buffer, bytesRead } = await file.read(Buffer.allocUnsafeSlow(length), 0, length, offset);
      return buffer.subarray(0, bytesRead);
    },
  };
}

/** Calls `use` with the source of a file, which is closed afterwards. */
export async function withFile<T>(path: string, use: (source: Source) => Promise<T>): Promise<T> {
  const file = await open(path);
  try {
    return await use(fileSource(file));
  } finally {
    await file.close();
  }
}
