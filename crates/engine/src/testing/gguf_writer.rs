//! Writes GGUF files, right ones and, through the raw calls, wrong ones.

use super::Stored;

/// Collects keys and tensors, then writes them in the order they came.
#[derive(Debug, Clone)]
pub struct GgufWriter {
    version: u32,
    alignment: u64,
    n_keys: u64,
    keys: Vec<u8>,
    tensors: Vec<Tensor>,
}

#[derive(Debug, Clone)]
struct Tensor {
    name: String,
    dims: Vec<u64>,
    ggml_type: u32,
    offset: Option<u64>,
    bytes: Vec<u8>,
}

impl Default for GgufWriter {
    fn default() -> Self {
        Self { version: 3, alignment: 32, n_keys: 0, keys: Vec::new(), tensors: Vec::new() }
    }
}

impl GgufWriter {
    /// A version 3 file with `general.architecture`.
    pub fn new(architecture: &str) -> Self {
        Self::default().string("general.architecture", architecture)
    }

    /// Another version number than 3; the layout stays that of 2 and 3.
    pub fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// Aligns tensors to `alignment` bytes and says so in `general.alignment`.
    pub fn alignment(mut self, alignment: u32) -> Self {
        self.alignment = u64::from(alignment);
        self.u32("general.alignment", alignment)
    }

    /// A key with the id of its value type and its value as it lies in the file.
    pub fn raw(mut self, key: impl AsRef<[u8]>, value_type: u32, value: &[u8]) -> Self {
        self.n_keys += 1;
        put_string(&mut self.keys, key.as_ref());
        self.keys.extend(value_type.to_le_bytes());
        self.keys.extend(value);
        self
    }

    /// An u32.
    pub fn u32(self, key: &str, value: u32) -> Self {
        self.raw(key, 4, &value.to_le_bytes())
    }

    /// An f32.
    pub fn f32(self, key: &str, value: f32) -> Self {
        self.raw(key, 6, &value.to_le_bytes())
    }

    /// A bool.
    pub fn boolean(self, key: &str, value: bool) -> Self {
        self.raw(key, 7, &[u8::from(value)])
    }

    /// A string.
    pub fn string(self, key: &str, value: impl AsRef<[u8]>) -> Self {
        let mut bytes = Vec::new();
        put_string(&mut bytes, value.as_ref());
        self.raw(key, 8, &bytes)
    }

    /// An array of strings.
    pub fn strings<T: AsRef<[u8]>>(self, key: &str, values: &[T]) -> Self {
        let mut bytes = array_header(8, values.len());
        values.iter().for_each(|value| put_string(&mut bytes, value.as_ref()));
        self.raw(key, 9, &bytes)
    }

    /// An array of f32.
    pub fn f32s(self, key: &str, values: &[f32]) -> Self {
        let mut bytes = array_header(6, values.len());
        bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        self.raw(key, 9, &bytes)
    }

    /// An array of i32.
    pub fn i32s(self, key: &str, values: &[i32]) -> Self {
        let mut bytes = array_header(5, values.len());
        bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        self.raw(key, 9, &bytes)
    }

    /// A tensor; `dims[0]` is the row length, `values` are row-major.
    pub fn tensor(self, name: &str, dims: &[u64], stored: Stored, values: &[f32]) -> Self {
        assert_eq!(dims.iter().product::<u64>(), values.len() as u64, "values of {name}");
        self.raw_tensor(name, dims, stored.id(), None, stored.encode(values))
    }

    /// A tensor with any type, the offset it claims (`None`: the right one) and its bytes.
    pub fn raw_tensor(mut self, name: &str, dims: &[u64], ggml_type: u32, offset: Option<u64>, bytes: Vec<u8>) -> Self {
        let (name, dims) = (name.to_owned(), dims.to_vec());
        self.tensors.push(Tensor { name, dims, ggml_type, offset, bytes });
        self
    }

    /// The file.
    pub fn finish(&self) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(self.version.to_le_bytes());
        file.extend((self.tensors.len() as u64).to_le_bytes());
        file.extend(self.n_keys.to_le_bytes());
        file.extend(&self.keys);
        let mut data = Vec::new();
        for tensor in &self.tensors {
            put_string(&mut file, tensor.name.as_bytes());
            file.extend((tensor.dims.len() as u32).to_le_bytes());
            file.extend(tensor.dims.iter().flat_map(|dim| dim.to_le_bytes()));
            file.extend(tensor.ggml_type.to_le_bytes());
            self.pad(&mut data);
            file.extend(tensor.offset.unwrap_or(data.len() as u64).to_le_bytes());
            data.extend(&tensor.bytes);
        }
        if !data.is_empty() {
            self.pad(&mut file);
            file.extend(data);
        }
        file
    }

    /// Pads as far as the alignment makes sense.
    fn pad(&self, bytes: &mut Vec<u8>) {
        let alignment = usize::try_from(self.alignment.clamp(1, 4096)).unwrap_or(1);
        bytes.resize(bytes.len().next_multiple_of(alignment), 0);
    }
}

fn put_string(bytes: &mut Vec<u8>, text: &[u8]) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text);
}

fn array_header(element: u32, len: usize) -> Vec<u8> {
    let mut bytes = element.to_le_bytes().to_vec();
    bytes.extend((len as u64).to_le_bytes());
    bytes
}
