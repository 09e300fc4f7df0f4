// Where an element lies: dims and strides hold up to six axes at the right end of two vec4s, 1 and 0 before them.

fn storage_index(element: u32, dims: array<vec4<u32>, 2>, strides: array<vec4<u32>, 2>) -> u32 {
    // Most layouts merge into an axis or two: divide only while there is something left to divide.
    if element < dims[1].w {
        return element * strides[1].w;
    }
    var rest = element / dims[1].w;
    var index = element % dims[1].w * strides[1].w;
    if rest < dims[1].z {
        return index + rest * strides[1].z;
    }
    index += rest % dims[1].z * strides[1].z;
    rest /= dims[1].z;
    if rest < dims[1].y {
        return index + rest * strides[1].y;
    }
    index += rest % dims[1].y * strides[1].y;
    rest /= dims[1].y;
    index += rest % dims[1].x * strides[1].x;
    rest /= dims[1].x;
    index += rest % dims[0].w * strides[0].w;
    rest /= dims[0].w;
    return index + rest * strides[0].z;
}
